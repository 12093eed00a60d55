/**
 * Makes the page work offline, and gives it the headers that many servers do not send.
 *
 * Small files lie in a cache of this version; worker.js keeps the large ones in a cache of its own, by checksum. What an
 * older version kept stays until this one has all of its own: until then a device that is offline gets the older one.
 */

const VERSION = "{{version}}";
const SHELL = {{shell}}; // path -> SHA-256
const OPTIONAL = {{optional}}; // paths of SHELL that the page answers without
const FILES = {{files}};
const NEEDED = {{needed}}; // of FILES, what the page loads without being asked
const HEADERS = {{headers}};

const SCOPE = new URL("./", self.location.href);
const PREFIX = `squeezebert ${SCOPE.pathname} `;
const SHELL_CACHE = `${PREFIX}${VERSION}`;
const FILES_CACHE = `${PREFIX}files`;
// Notes in this version's cache: the caches that were there before it, written when it is whole; the one in use, where
// that is not its own
const OLDER = new URL("?older", SCOPE);
const IN_USE = new URL("?in-use", SCOPE);
const REACH_MS = 4000; // how long a device waits for its server before it counts as offline

self.addEventListener("install", (event) => event.waitUntil(keepShell()));

self.addEventListener("activate", (event) => {
  event.waitUntil(settle().then(() => self.clients.claim()));
});

self.addEventListener("message", (event) => {
  if (event.data === "take over") self.skipWaiting();
});

self.addEventListener("fetch", (event) => {
  const address = new URL(event.request.url);
  if (event.request.method !== "GET" || !address.href.startsWith(SCOPE.href)) return;
  const path = address.pathname.slice(SCOPE.pathname.length) || "index.html";
  // Other pages below this one are none of its business, and worker.js looks into the cache of large files itself
  if (!Object.hasOwn(SHELL, path) || address.searchParams.has("sha256")) return;
  event.respondWith(respond(event.request, path));
});

async function keepShell() {
  const older = (await caches.keys()).filter(
    (name) => name.startsWith(PREFIX) && ![SHELL_CACHE, FILES_CACHE].includes(name),
  );
  const cache = await caches.open(SHELL_CACHE);
  await Promise.all(Object.keys(SHELL).map((path) => keep(cache, path)));
  await cache.put(OLDER, new Response(JSON.stringify(older)));
}

/** Keep a file as the server has it now. One of another version, as while a page is copied to its server, is refused. */
async function keep(cache, path) {
  const address = new URL(path, SCOPE);
  try {
    const response = await fetch(new Request(address, { cache: "reload" }));
    if (!response.ok) throw new Error(`${path}: the server answered ${response.status}`);
    const bytes = await response.arrayBuffer();
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
    const checksum = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
    if (checksum !== SHELL[path]) throw new Error(`${path} is of another version`);
    // Made anew: browsers refuse a redirected answer for a page, as of servers that hide "index.html"
    const headers = { "Content-Type": response.headers.get("Content-Type") ?? "application/octet-stream" };
    await cache.put(address, new Response(bytes, { headers }));
  } catch (error) {
    if (!OPTIONAL.includes(path)) throw error;
  }
}

/** Remove what older versions kept, once this one has all that it needs; say whether it has. */
async function settle() {
  const cache = await caches.open(FILES_CACHE);
  for (const path of NEEDED) if (!(await cache.match(new URL(path, SCOPE)))) return false;
  for (const name of await older()) await caches.delete(name);
  const current = new Set(FILES.map((path) => new URL(path, SCOPE).href));
  for (const request of await cache.keys()) {
    if (!current.has(request.url)) await cache.delete(request);
  }
  return true;
}

/** The caches of older versions, the newest last. Other pages of this origin have other names. */
async function older() {
  const note = await (await caches.open(SHELL_CACHE)).match(OLDER);
  const there = new Set(await caches.keys());
  return note ? (await note.json()).filter((name) => there.has(name)) : [];
}

/** The cache that a visit gets its page from. */
async function choose() {
  let name = SHELL_CACHE;
  if (!(await settle())) {
    for (const before of await older()) {
      if (await (await caches.open(before)).match(OLDER)) name = before;
    }
    if (name !== SHELL_CACHE && (await isReachable())) name = SHELL_CACHE;
  }
  const cache = await caches.open(SHELL_CACHE);
  if (name === SHELL_CACHE) await cache.delete(IN_USE);
  else await cache.put(IN_USE, new Response(name));
  return name;
}

async function isReachable() {
  try {
    const address = new URL("sw.js", SCOPE);
    return (await fetch(address, { cache: "no-store", signal: AbortSignal.timeout(REACH_MS) })).ok;
  } catch {
    return false;
  }
}

async function inUse() {
  const note = await (await caches.open(SHELL_CACHE)).match(IN_USE);
  return note ? note.text() : SHELL_CACHE;
}

async function respond(request, path) {
  const name = request.mode === "navigate" ? await choose() : await inUse();
  const found = (await (await caches.open(name)).match(new URL(path, SCOPE))) ?? (await fetch(request));
  // What cannot be made anew
  if (found.type === "opaque" || found.type === "opaqueredirect" || found.status === 0) return found;
  const headers = new Headers(found.headers);
  for (const [name, value] of Object.entries(HEADERS)) headers.set(name, value);
  const empty = [204, 304].includes(found.status);
  return new Response(empty ? null : found.body, { status: found.status, statusText: found.statusText, headers });
}
