/**
 * Manifest: checks `manifest.json` of a package that a stranger may have written, and says which
 * files it lists.
 *
 * The server (`serve.mjs`) and the page run the same checks. What is returned has the type
 * `Manifest` indeed.
 */
import { expect } from "./errors.mjs";
import { upgraded } from "./manifest-format-1.mjs";

/**
 * @typedef {object} CacheLayer  names of the graph's inputs and outputs, and sizes
 * @property {number} window  0 for a full layer
 * @property {number} sink_tokens  first ones that a window layer keeps in their slots, which is the
 *   graph's work
 * @property {number} kv_heads
 * @property {number} head_dim
 * @property {string} past_key
 * @property {string} past_value
 * @property {string} present_key
 * @property {string} present_value
 *
 * @typedef {object} WeightFile
 * @property {string} name
 * @property {"checkpoint" | "export"} origin
 * @property {number} size
 * @property {string} header_sha256
 *
 * @typedef {object} Manifest
 * @property {"portable" | "ort"} target
 * @property {string} [onnxruntime]  the least version that runs the graph, major and minor; 1.28
 *   where there is none
 * @property {({name?: unknown} | null)[]} ops  that the graph uses
 * @property {string} graph
 * @property {CacheLayer[]} cache
 * @property {"float32" | "float16"} kv_dtype
 * @property {number} vocab_size
 * @property {number} longest  most tokens of a sequence
 * @property {number[]} eos_tokens  end a text, unless generation_config.json names others
 * @property {{mode: "link" | "copy" | "reference", root: string | null, files: WeightFile[]}}
 *   weights
 * @property {string[]} tokenizer_files
 */

export const MANIFEST = "manifest.json";
export const GENERATION_CONFIG = "generation_config.json";
export const GOLDEN = "golden/golden.json";

/** Bytes at most, of each kind of file. */
export const MOST_BYTES = {
  manifest: 16e6,
  generationConfig: 16e6,
  golden: 8e6,
  tokenizer: 64e6,
  graph: 256e6,
  // WebAssembly addresses 4 GiB, which the weights share with copies that ONNX Runtime makes.
  weights: 2 ** 30,
};

const VERSION = /^[0-9]{1,3}\.[0-9]{1,3}$/;
const MOST_OPS = 1000; // kinds of them
const MOST_LAYERS = 1024;
const MOST_VOCABULARY = 2 ** 24; // tokens; today's models have up to 2 ** 18
const LONGEST = 2 ** 31 - 1; // tokens of a sequence or of a window
const MOST_WIDTH = 2 ** 16; // heads, or dimensions of a head
const MOST_STOPS = 1000; // tokens that end a text
const LONGEST_NAME = 255; // characters

/**
 * Return a manifest in format 2, if it makes sense and this client can run the package; throw a
 * ClientError otherwise.
 * @param {any} value  of the JSON document
 * @returns {Manifest}
 */
export function checkManifest(value) {
  const written = object("", value, "an object");
  const { format, format_version: version } = written;
  check("format", format, format === "gptoss-onnx", "gptoss-onnx");
  check("format_version", version, version === 1 || version === 2, "1 or 2");
  const manifest = version === 1 ? upgraded(written) : written;
  const { target, kv_dtype: dtype, stage } = manifest;
  const all = "nothing: export again without --layers, since some layers do not run alone";
  check("stage", stage, stage === undefined || stage === null, all);
  check("target", target, target === "portable" || target === "ort", "portable or ort");
  check(
    "kv_dtype",
    dtype,
    dtype === "float32" || dtype === "float16",
    "float32 or float16 in a browser",
  );
  const least = manifest.onnxruntime;
  const isVersion = least === undefined || (typeof least === "string" && VERSION.test(least));
  check("onnxruntime", least, isVersion, "a version such as 1.32");
  list("ops", manifest.ops, 0, MOST_OPS);
  object("model", manifest.model, "an object");
  integer("vocab_size", manifest.vocab_size, 1, MOST_VOCABULARY);
  integer("longest", manifest.longest, 1, LONGEST);
  checkCache(manifest.cache, target);
  checkWeights(manifest.weights);
  fileName("graph", manifest.graph);
  for (const [i, name] of list("tokenizer_files", manifest.tokenizer_files, 0, 100).entries())
    fileName(`tokenizer_files[${i}]`, name);
  const names = new Set();
  for (const { name } of listedFiles(/** @type {any} */ (manifest))) {
    check("file names", name, !names.has(name), "each name once");
    names.add(name);
  }
  return /** @type {any} */ (manifest);
}

/**
 * Return every file that a package may consist of. Weight files of origin `checkpoint` lie below
 * `weights.root` in mode `reference`, all others in the package folder.
 * @param {Manifest} manifest
 */
export function listedFiles({ graph, weights, tokenizer_files: tokenizerFiles }) {
  /** @type {{name: string, weights: WeightFile | null}[]} */
  const files = [];
  for (const name of [MANIFEST, graph, GENERATION_CONFIG, GOLDEN])
    files.push({ name, weights: null });
  for (const name of tokenizerFiles) files.push({ name, weights: null });
  for (const file of weights.files) files.push({ name: file.name, weights: file });
  return files;
}

/**
 * Return the folder that a weight file lies in where that is not the package folder.
 * @param {Manifest["weights"]} weights
 * @param {WeightFile} file
 */
export function outerRoot(weights, file) {
  return weights.mode === "reference" && file.origin === "checkpoint" ? weights.root : null;
}

/** Return the bytes of all weights. @param {Manifest} manifest */
export const weightBytes = ({ weights }) => weights.files.reduce((sum, file) => sum + file.size, 0);

/**
 * Return the tokens that end a text: those of `generation_config.json`, else the manifest's.
 * @param {any} config  of generation_config.json, {} where there is none
 * @param {Manifest} manifest
 */
export function stopTokens(config, { eos_tokens, vocab_size: vocab }) {
  const where =
    config?.eos_token_id == null
      ? `${MANIFEST}: eos_tokens`
      : `${GENERATION_CONFIG}: eos_token_id`;
  expect(
    GENERATION_CONFIG,
    config,
    typeof config === "object" && config !== null && !Array.isArray(config),
    "an object",
  );
  const value = config.eos_token_id ?? eos_tokens ?? [];
  const tokens = Array.isArray(value) ? value : [value];
  expect(where, value, tokens.length <= MOST_STOPS, `at most ${MOST_STOPS} token ids`);
  for (const token of tokens) {
    const known = Number.isInteger(token) && token >= 0 && token < vocab;
    expect(where, token, known, `token ids, 0 to ${vocab - 1}`);
  }
  return /** @type {number[]} */ (tokens);
}

/** @param {unknown} cache @param {string} target */
function checkCache(cache, target) {
  const names = new Set();
  for (const [i, value] of list("cache", cache, 1, MOST_LAYERS).entries()) {
    const where = `cache[${i}]`;
    const layer = object(where, value, "an object");
    integer(`${where}.window`, layer.window, 0, LONGEST);
    // A window sees a token that it does not keep; a full layer keeps all; target ort has no op
    // that keeps some.
    const mostKept = target === "portable" ? Math.max(layer.window - 1, 0) : 0;
    integer(`${where}.sink_tokens`, layer.sink_tokens, 0, mostKept);
    integer(`${where}.kv_heads`, layer.kv_heads, 1, MOST_WIDTH);
    integer(`${where}.head_dim`, layer.head_dim, 1, MOST_WIDTH);
    for (const key of ["past_key", "past_value", "present_key", "present_value"]) {
      const name = layer[key];
      // Names become keys of objects, where __proto__ would mean something else.
      const plain = typeof name === "string" && /^[\w.]{1,255}$/.test(name) && name !== "__proto__";
      check(`${where}.${key}`, name, plain, "a name of letters, digits, dots and underscores");
      check(`${where}.${key}`, name, !names.has(name), "a name of its own");
      names.add(name);
    }
  }
}

/** @param {unknown} value */
function checkWeights(value) {
  const weights = object("weights", value, "an object");
  const { mode, root } = weights;
  check(
    "weights.mode",
    mode,
    ["link", "copy", "reference"].includes(mode),
    "link, copy or reference",
  );
  if (mode === "reference") {
    const absolute =
      typeof root === "string" && /^([/\\]|[A-Za-z]:[/\\])/.test(root) && !root.includes("\0");
    check("weights.root", root, absolute, "an absolute folder in mode reference");
  } else {
    check("weights.root", root, root === null, `nothing in mode ${mode}`);
  }
  for (const [i, entry] of list("weights.files", weights.files, 1, 10_000).entries()) {
    const where = `weights.files[${i}]`;
    const file = object(where, entry, "an object");
    const { origin, header_sha256: hash } = file;
    check(
      `${where}.origin`,
      origin,
      origin === "checkpoint" || origin === "export",
      "checkpoint or export",
    );
    if (outerRoot(weights, file) === null) fileName(`${where}.name`, file.name);
    else relativePath(`${where}.name`, file.name);
    integer(`${where}.size`, file.size, 1, Number.MAX_SAFE_INTEGER);
    check(
      `${where}.header_sha256`,
      hash,
      typeof hash === "string" && /^[0-9a-f]{64}$/.test(hash),
      "64 hex digits",
    );
  }
  const bytes = weightBytes(/** @type {Manifest} */ ({ weights }));
  const most = MOST_BYTES.weights;
  expect("weights in bytes", bytes, bytes <= most, `at most ${most} in a browser`);
}

/** @param {string} where @param {unknown} name */
function fileName(where, name) {
  relativePath(where, name);
  check(where, name, !(/** @type {string} */ (name).includes("/")), "a plain file name");
}

/** @param {string} where @param {unknown} name */
function relativePath(where, name) {
  const text = typeof name === "string" ? name : "";
  const parts = text.split("/");
  const plain = parts.every((part) => part !== "" && part !== "." && part !== "..");
  const holds = plain && !/[\\\0]/.test(text) && text.isWellFormed() && text.length <= LONGEST_NAME;
  check(where, name, holds, "a plain file name");
}

/**
 * @param {string} where
 * @param {unknown} value
 * @param {number} least
 * @param {number} most
 * @returns {any[]}
 */
function list(where, value, least, most) {
  const length = Array.isArray(value) ? value.length : -1;
  check(where, value, length >= least && length <= most, `a list of ${least} to ${most} entries`);
  return /** @type {any[]} */ (value);
}

/** @param {string} where @param {unknown} value @param {string} expected @returns {any} */
function object(where, value, expected) {
  check(
    where,
    value,
    typeof value === "object" && value !== null && !Array.isArray(value),
    expected,
  );
  return value;
}

/** @param {string} where @param {unknown} value @param {number} least @param {number} most */
function integer(where, value, least, most) {
  const holds = Number.isInteger(value) && Number(value) >= least && Number(value) <= most;
  check(where, value, holds, `an integer, ${least} to ${most}`);
}

/** @param {string} field @param {unknown} found @param {boolean} holds @param {string} expected */
function check(field, found, holds, expected) {
  expect(field ? `${MANIFEST}: ${field}` : MANIFEST, found, holds, expected);
}
