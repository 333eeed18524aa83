/** Package: reads the manifest of a package folder over HTTP, refuses what a browser cannot run, downloads files. */

/**
 * @typedef {{window: number, kv_heads: number, head_dim: number, past_key: string, past_value: string,
 *   present_key: string, present_value: string}} CacheLayer
 * @typedef {{format: string, format_version: number, target: "portable" | "ort", graph: string,
 *   kv_dtype: "float32" | "float16", model: Record<string, any>, cache: CacheLayer[],
 *   weights: {files: {name: string, size: number}[]}, tokenizer_files: string[]}} Manifest
 * @typedef {(what: string, done: number, total: number) => void} OnProgress  total 0: unknown
 */

/** WebAssembly addresses 4 GiB, which the weights share with the copies that ONNX Runtime makes of them. */
export const MOST_WEIGHT_BYTES = 1 << 30;

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

/** Return the JSON document at a URL. @param {URL} url @param {OnProgress} [onProgress] */
export async function fetchJson(url, onProgress) {
  const text = new TextDecoder().decode(await fetchBytes(url, undefined, onProgress));
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`${url.pathname}: found no JSON (${error.message}); export the package again`);
  }
}

/**
 * Return the bytes at a URL, telling how many have arrived as they come. A size that is known must be met.
 * @param {URL} url
 * @param {number} [size]
 * @param {OnProgress} [onProgress]
 */
export async function fetchBytes(url, size, onProgress) {
  const response = await fetch(url).catch((error) => {
    throw new Error(`${url.pathname}: not fetched (${error.message}); is the server running?`);
  });
  if (!response.ok || !response.body)
    throw new Error(`${url.pathname}: found HTTP status ${response.status}, expected 200; is the package complete?`);
  const total = size ?? Number(response.headers.get("Content-Length"));
  let bytes = new Uint8Array(total); // as large as it will be: large weights may not fit twice
  let received = 0;
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    if (received + value.length > bytes.length) bytes = new Uint8Array(bytes.buffer.transfer(2 * (received + value.length)));
    bytes.set(value, received);
    received += value.length;
    onProgress?.(url.pathname, received, Math.max(total, received));
  }
  expect(`${url.pathname}: bytes`, received, size === undefined || received === size, `${size}; export the package again`);
  return bytes.subarray(0, received);
}

/** Throw an error that names a thing, what was found and what was expected, unless a condition holds.
 * @type {(thing: string, found: unknown, holds: boolean, expected: string) => void} */
export function expect(thing, found, holds, expected) {
  if (!holds) throw new Error(`${thing}: found ${found}, expected ${expected}`);
}
