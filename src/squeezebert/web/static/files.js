/** Files of the page in: fetched once with progress, checked against their checksums, and kept for use offline. */

/** The cache of checked files: one for each page on an origin, whatever its version; keys name the checksum. */
export function cacheName(scope) {
  return `squeezebert ${new URL(scope).pathname} files`;
}

/**
 * Return the bytes of a file {path, bytes, sha256} of the page at `scope`, from the cache or the network.
 *
 * `onProgress(loaded)` is told how many bytes are there. Throws an Error that says what is wrong: not there, cut off,
 * another file than the page was made with.
 */
export async function getFile(file, scope, onProgress = () => {}) {
  const address = new URL(file.path, scope);
  address.searchParams.set("sha256", file.sha256);
  const cache = await openCache(scope);
  const kept = await cache?.match(address);
  if (kept) {
    const bytes = new Uint8Array(await kept.arrayBuffer());
    if (bytes.length === file.bytes) {
      onProgress(bytes.length);
      return bytes;
    }
  }
  let bytes = await load(address, file, onProgress);
  if (!(await isWhole(bytes, file))) {
    // The browser may have kept a file that the server has mended since
    bytes = await load(address, file, onProgress, "reload");
    if (!(await isWhole(bytes, file))) {
      throw new Error(
        `${file.path} is not the file that this page was made with: load its newer version where one is offered, or come back later`,
      );
    }
  }
  try {
    await cache?.put(address, new Response(bytes, { headers: { "Content-Type": "application/octet-stream" } }));
  } catch {
    // No room to keep it: the page works, but not offline
  }
  return bytes;
}

/** Whether all files are kept. */
export async function areKept(files, scope) {
  const cache = await openCache(scope);
  if (!cache) return false;
  for (const file of files) {
    const address = new URL(file.path, scope);
    address.searchParams.set("sha256", file.sha256);
    if (!(await cache.match(address))) return false;
  }
  return true;
}

async function openCache(scope) {
  try {
    return await caches.open(cacheName(scope));
  } catch {
    return null; // not over HTTPS, or the visitor forbids it
  }
}

async function load(address, file, onProgress, cache = "default") {
  let response;
  try {
    response = await fetch(address, { credentials: "same-origin", cache });
  } catch {
    throw new Error(`${file.path} cannot be fetched: is this device offline?`);
  }
  if (!response.ok) throw new Error(`${file.path}: the server answered ${response.status}`);
  const bytes = new Uint8Array(file.bytes);
  let loaded = 0;
  const reader = response.body.getReader();
  for (;;) {
    let done, value;
    try {
      ({ done, value } = await reader.read());
    } catch {
      throw new Error(`${file.path} was cut off while it was loaded: reload the page`);
    }
    if (done) break;
    if (loaded + value.length > bytes.length) return new Uint8Array(0);
    bytes.set(value, loaded);
    loaded += value.length;
    onProgress(loaded);
  }
  return bytes.subarray(0, loaded);
}

async function isWhole(bytes, file) {
  if (bytes.length !== file.bytes) return false;
  if (!globalThis.crypto?.subtle) return true; // not over HTTPS: there is nothing to check with
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("") === file.sha256;
}
