/**
 * Makes the page work offline, and gives it the headers that many servers do not send.
 *
 * Small files lie in a cache of this version; worker.js keeps the large ones in a cache of its own, by checksum.
 */

const VERSION = "{{version}}";
const SHELL = {{shell}};
const FILES = {{files}};
const HEADERS = {{headers}};

const SCOPE = new URL("./", self.location.href);
const PREFIX = `squeezebert ${SCOPE.pathname} `;
const SHELL_CACHE = `${PREFIX}${VERSION}`;
const FILES_CACHE = `${PREFIX}files`;

self.addEventListener("install", (event) => {
  const requests = SHELL.map((path) => new Request(new URL(path, SCOPE), { cache: "reload" }));
  event.waitUntil(caches.open(SHELL_CACHE).then((cache) => cache.addAll(requests)));
});

self.addEventListener("activate", (event) => {
  event.waitUntil(tidy().then(() => self.clients.claim()));
});

self.addEventListener("message", (event) => {
  if (event.data === "take over") self.skipWaiting();
});

self.addEventListener("fetch", (event) => {
  const address = new URL(event.request.url);
  if (event.request.method !== "GET" || !address.href.startsWith(SCOPE.href)) return;
  event.respondWith(respond(event.request, address));
});

/** Remove what older versions kept. Other pages of this origin have other names. */
async function tidy() {
  for (const name of await caches.keys()) {
    if (name.startsWith(PREFIX) && ![SHELL_CACHE, FILES_CACHE].includes(name)) await caches.delete(name);
  }
  const cache = await caches.open(FILES_CACHE);
  const current = new Set(FILES.map((path) => new URL(path, SCOPE).href));
  for (const request of await cache.keys()) {
    if (!current.has(request.url)) await cache.delete(request);
  }
}

async function respond(request, address) {
  // worker.js asks for large files with their checksum, and looks into their cache itself
  if (address.searchParams.has("sha256")) return fetch(request);
  const cache = await caches.open(SHELL_CACHE);
  const path = address.pathname === SCOPE.pathname ? new URL("index.html", SCOPE) : address;
  const found = (await cache.match(path, { ignoreSearch: true })) ?? (await fetch(request));
  // A redirected or opaque answer cannot be made anew
  if (found.type === "opaque" || found.redirected || found.status === 0) return found;
  const headers = new Headers(found.headers);
  for (const [name, value] of Object.entries(HEADERS)) headers.set(name, value);
  const empty = [204, 304].includes(found.status);
  return new Response(empty ? null : found.body, { status: found.status, statusText: found.statusText, headers });
}
