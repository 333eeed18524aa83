/** Fetch: downloads of a known or a bounded size, with progress. */
import { ClientError, expect, messageOf } from "./errors.mjs";
import { parseJson } from "./json.mjs";

/**
 * @typedef {(what: string, done: number, total: number) => void} OnProgress  total 0: unknown
 * @typedef {object} FetchOptions
 * @property {number} most  bytes at most
 * @property {number} [size]  bytes exactly, where they are known
 * @property {OnProgress} [onProgress]
 * @property {string} [instead]  stands in for a file that may be missing
 */

/**
 * Return the URL of a file of a package. A name is data: nothing in it may lead elsewhere.
 * @param {string} name  relative, with slashes only between folders
 * @param {URL} folder
 */
export function fileUrl(name, folder) {
  return new URL(`./${name.split("/").map(encodeURIComponent).join("/")}`, folder);
}

/** Return the JSON at a URL. @param {URL} url @param {FetchOptions} options */
export async function fetchJson(url, options) {
  return parseJson(await fetchBytes(url, options), url.pathname);
}

/**
 * Return the bytes at a URL; stop reading where there are more than expected.
 * @param {URL} url
 * @param {FetchOptions} options
 */
export async function fetchBytes(url, { most, size, onProgress, instead }) {
  const response = await attempt(url, () => fetch(url));
  if (response.status === 404 && instead !== undefined) return new TextEncoder().encode(instead);
  expect(
    `${url.pathname}: HTTP status`,
    response.status,
    response.ok,
    "200; is the package complete?",
  );
  const limit = size ?? most;
  // Too small where the body is compressed.
  const promised = Math.max(0, Number(response.headers.get("Content-Length")));
  // As large as it will be: large weights may not fit twice.
  let bytes = new Uint8Array(size ?? Math.min(promised, limit));
  let done = 0;
  const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
  for (;;) {
    const { value } = await attempt(url, () => reader.read());
    if (value === undefined) break;
    if (done + value.length > limit) {
      await reader.cancel();
      const expected =
        size === undefined ? `at most ${limit}` : `${size}; export the package again`;
      expect(`${url.pathname}: bytes`, `more than ${limit}`, false, expected);
    }
    if (done + value.length > bytes.length)
      bytes = enlarged(bytes, Math.min(2 * (done + value.length), limit));
    bytes.set(value, done);
    done += value.length;
    onProgress?.(url.pathname, done, Math.max(size ?? promised, done));
  }
  expect(
    `${url.pathname}: bytes`,
    done,
    done === (size ?? done),
    `${size}; export the package again`,
  );
  return bytes.subarray(0, done);
}

/** @param {Uint8Array<ArrayBuffer>} bytes @param {number} size */
function enlarged(bytes, size) {
  const larger = new Uint8Array(size);
  larger.set(bytes);
  return larger;
}

/**
 * Return what a part of a download returns; name the file where it fails.
 * @template T
 * @param {URL} url
 * @param {() => Promise<T>} part
 */
async function attempt(url, part) {
  try {
    return await part();
  } catch (error) {
    throw new ClientError(`${url.pathname}: found ${messageOf(error)}, expected an answer`);
  }
}
