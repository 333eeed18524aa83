/** Package: the files of a package folder, fetched over HTTP, and what of it a browser cannot run. */

/** @typedef {{window: number, kv_heads: number, head_dim: number, past_key: string, past_value: string,
 *   present_key: string, present_value: string}} CacheLayer
 * @typedef {{format: string, format_version: number, target: "portable" | "ort", graph: string, cache: CacheLayer[],
 *   kv_dtype: "float32" | "float16", model: Record<string, any>, weights: {files: {name: string, size: number}[]},
 *   tokenizer_files: string[]}} Manifest
 * @typedef {(what: string, done: number, total: number) => void} OnProgress  total 0: unknown */

/** WebAssembly addresses 4 GiB, which the weights share with the copies that ONNX Runtime makes of them. */
export const MOST_WEIGHT_BYTES = 2 ** 30;
const CHUNK = 512; // most tokens of one call

/** Return C, the slots of a layer's cache. Portable window layers are rings in which a call overwrites nothing that it
 * may still see; those of target ort hold the last tokens in order.
 * @param {string} target @param {number} window  0 for a full layer @param {number} capacity  tokens */
export function slots(target, window, capacity) {
  if (window === 0) return capacity;
  return target === "ort" ? window : Math.min(capacity, window + CHUNK - 1);
}

/** Return where the calls that run `count` tokens end. A graph of target ort returns the logits of a call's last token
 * alone, so there a call ends after each wanted position as well.
 * @param {string} target @param {number} count @param {number[]} positions */
export function callEnds(target, count, positions) {
  const wanted = target === "ort" ? positions.map((position) => position + 1) : [];
  const ends = [];
  for (let end = 0; end < count; ends.push(end)) {
    const begin = end;
    end = Math.min(begin + CHUNK, count, ...wanted.filter((place) => place > begin));
  }
  return ends;
}

/** Throw unless this client can run the package; return the bytes of its weights. @param {Manifest} manifest */
export function checkManifest(manifest) {
  const { format, format_version: version, target, kv_dtype: dtype, weights } = manifest;
  const bytes = weights?.files?.reduce((sum, file) => sum + file.size, 0);
  expect("manifest.json: format", format, format === "gptoss-onnx", "gptoss-onnx");
  expect("manifest.json: format_version", version, version === 1, "1");
  expect("manifest.json: target", target, ["portable", "ort"].includes(target), "portable or ort");
  expect("manifest.json: kv_dtype", dtype, ["float32", "float16"].includes(dtype), "float32 or float16 in a browser");
  expect("weights in bytes", bytes, bytes <= MOST_WEIGHT_BYTES, `at most ${MOST_WEIGHT_BYTES} in a browser`);
  return bytes;
}

/** Return the JSON at a URL. @param {URL} url @param {{onProgress?: OnProgress, instead?: string}} [options] */
export async function fetchJson(url, options) {
  const body = new Response(await fetchBytes(url, options));
  return body.json().catch(({ message }) => expect(url.pathname, `no JSON (${message})`, false, "a whole file"));
}

/** Return the bytes at a URL, or a text that stands in for a file that may be missing; a known size must be met.
 * @param {URL} url @param {{size?: number, onProgress?: OnProgress, instead?: string}} [options] */
export async function fetchBytes(url, { size, onProgress, instead } = {}) {
  const response = await fetch(url).catch(({ message }) => expect(url.pathname, message, false, "an answer"));
  if (response.status === 404 && instead) return new TextEncoder().encode(instead);
  expect(`${url.pathname}: HTTP status`, response.status, response.ok, "200; is the package complete?");
  const expected = size ?? Number(response.headers.get("Content-Length")); // too small where the body is compressed
  let bytes = new Uint8Array(size ?? 0); // as large as it will be: large weights may not fit twice
  let done = 0;
  for (const reader = response.body.getReader(); ; ) {
    const { value } = await reader.read();
    if (!value) break;
    if (done + value.length > bytes.length) {
      const smaller = bytes;
      bytes = new Uint8Array(2 * (done + value.length));
      bytes.set(smaller);
    }
    bytes.set(value, done);
    done += value.length;
    onProgress?.(url.pathname, done, Math.max(expected, done));
  }
  expect(`${url.pathname}: bytes`, done, done === (size ?? done), `${size}; export the package again`);
  return bytes.subarray(0, done);
}

/** Unless a condition holds, throw an error that names a thing, what was found and what was expected.
 * @type {(thing: string, found: unknown, holds: boolean, expected: string) => any} */
export function expect(thing, found, holds, expected) {
  if (!holds) throw new Error(`${thing}: found ${found}, expected ${expected}`);
}
