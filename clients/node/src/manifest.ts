import { isAbsolute } from "node:path";
import { check, oneOf } from "./errors.js";
import { Fields } from "./fields.js";
import { isPlainName } from "./files.js";
import { upgraded } from "./manifest-format-1.js";

/** What every package ran on before the manifest said it. */
const FIRST_VERSION = "1.28";
const MOST_LAYERS = 4096;
const MOST_SLOTS = 2 ** 31 - 1; // of a window, tokens of a sequence, tokens of a vocabulary
const MOST_WIDTH = 1 << 16; // of heads and of their elements

/**
 * The cache of one layer. `window` 0 means a full one; a window layer keeps its first `sink_tokens`
 * in their slots, which is the graph's work.
 */
export interface CacheLayer {
  window: number;
  sink_tokens: number;
  kv_heads: number;
  head_dim: number;
  past_key: string;
  past_value: string;
  present_key: string;
  present_value: string;
}

/** A safetensors file that weights lie in. */
export interface WeightFile {
  name: string;
  origin: "checkpoint" | "export";
  size: number;
  mtime_ns: number; // rounded to a double, as JSON.parse does
  header_sha256: string;
}

/** What this client reads of `manifest.json`; `manifest.schema.json` describes all of it. */
export interface Manifest {
  target: "portable" | "ort" | "openvino";
  onnxruntime: string; // the least version that runs the graph, major and minor
  graph: string;
  kv_dtype: "float32" | "float16" | "bfloat16";
  vocab_size: number;
  longest: number; // most tokens of a sequence
  eos_tokens: number[]; // end a text, unless generation_config.json names others
  cache: CacheLayer[];
  ops: { domain: string; name: string }[];
  weights: { mode: "link" | "copy" | "reference"; root: string | null; files: WeightFile[] };
  tokenizer_files: string[];
}

/** Checks a whole document, types and ranges; `where` names it in errors. */
export function parseManifest(document: unknown, where: string): Manifest {
  const written = new Fields(document, where);
  written.oneOf("format", ["gptoss-onnx"]);
  const isOld = written.oneOf("format_version", [1, 2]) === 1;
  const fields = isOld ? new Fields(upgraded(document as object), where) : written;
  const isWhole = fields.get("stage") === undefined;
  const all = "one of all layers: export again without --layers";
  check(isWhole, where, "a package of some layers alone", all);
  const target = fields.oneOf("target", ["portable", "ort", "openvino"] as const);
  const graph = fields.fileName("graph");
  // ONNX Runtime reads names that end in .ort as another format, which this client does not check.
  check(graph.endsWith(".onnx"), fields.name("graph"), graph, "a name that ends in .onnx");
  const manifest: Manifest = {
    target,
    onnxruntime: leastVersion(fields),
    graph,
    kv_dtype: fields.oneOf("kv_dtype", ["float32", "float16", "bfloat16"] as const),
    vocab_size: fields.integer("vocab_size", 1, MOST_SLOTS),
    longest: fields.integer("longest", 1, MOST_SLOTS),
    eos_tokens: fields.tokenIds("eos_tokens") ?? [],
    cache: fields.objects("cache", (layer) => cacheLayer(layer, target), 1, MOST_LAYERS),
    ops: fields.objects("ops", (op) => ({ domain: op.text("domain"), name: op.text("name") })),
    weights: parseWeights(fields.object("weights")),
    tokenizer_files: fields.list("tokenizer_files", (file, name) => {
      check(typeof file === "string" && isPlainName(file), name, file, "the plain name of a file");
      return file;
    }),
  };
  checkDistinct(
    fields.name("cache: names"),
    manifest.cache.flatMap((layer) => [layer.past_key, layer.past_value]),
  );
  const presents = manifest.cache.flatMap((layer) => [layer.present_key, layer.present_value]);
  checkDistinct(fields.name("cache: names"), presents);
  return manifest;
}

function leastVersion(fields: Fields): string {
  if (fields.get("onnxruntime") === undefined) return FIRST_VERSION;
  const version = fields.text("onnxruntime");
  const isVersion = /^[0-9]{1,3}\.[0-9]{1,3}$/.test(version);
  check(isVersion, fields.name("onnxruntime"), version, "a version such as 1.32");
  return version;
}

function cacheLayer(layer: Fields, target: Manifest["target"]): CacheLayer {
  const window = layer.integer("window", 0, MOST_SLOTS);
  // A window sees a token that it does not keep; a full layer keeps all; target ort has no op that
  // keeps some.
  const mostKept = target === "ort" ? 0 : Math.max(window - 1, 0);
  return {
    window,
    sink_tokens: layer.integer("sink_tokens", 0, mostKept),
    kv_heads: layer.integer("kv_heads", 1, MOST_WIDTH),
    head_dim: layer.integer("head_dim", 1, MOST_WIDTH),
    past_key: layer.text("past_key"),
    past_value: layer.text("past_value"),
    present_key: layer.text("present_key"),
    present_value: layer.text("present_value"),
  };
}

function parseWeights(weights: Fields): Manifest["weights"] {
  const mode = weights.oneOf("mode", ["link", "copy", "reference"] as const);
  let root: string | null = null;
  if (mode === "reference") {
    root = weights.text("root");
    check(
      isAbsolute(root),
      weights.name("root"),
      root,
      "the absolute path of the checkpoint's folder",
    );
  } else {
    check(
      weights.get("root") === undefined,
      weights.name("root"),
      weights.get("root"),
      `null in mode ${mode}`,
    );
  }
  const files = weights.objects("files", (file) => weightFile(file, mode), 0, 1 << 14);
  checkDistinct(
    weights.name("files: names"),
    files.map(({ name }) => name),
  );
  return { mode, root, files };
}

function weightFile(file: Fields, mode: Manifest["weights"]["mode"]): WeightFile {
  const origin = file.oneOf("origin", ["checkpoint", "export"] as const);
  // ONNX Runtime looks for every weight below the one root, so the package has no file of its own
  // beside it.
  if (mode === "reference") oneOf(file.name("origin in mode reference"), origin, ["checkpoint"]);
  const header = file.text("header_sha256");
  check(/^[0-9a-f]{64}$/.test(header), file.name("header_sha256"), header, "64 hexadecimal digits");
  const time = file.get("mtime_ns");
  const isTime = Number.isInteger(time) && (time as number) >= 0 && (time as number) < 2 ** 63;
  check(isTime, file.name("mtime_ns"), time, "nanoseconds since 1970");
  return {
    name: mode === "reference" ? relativeName(file) : file.fileName("name"),
    origin,
    size: file.integer("size", 0, Number.MAX_SAFE_INTEGER),
    mtime_ns: time as number,
    header_sha256: header,
  };
}

/** Returns a name below the checkpoint's folder, in parts that are plain names. */
function relativeName(file: Fields): string {
  const name = file.text("name");
  check(
    name.split("/").every(isPlainName),
    file.name("name"),
    name,
    "a relative path without '..'",
  );
  return name;
}

function checkDistinct(name: string, values: string[]): void {
  const seen = new Set<string>();
  for (const value of values) {
    check(!seen.has(value), name, `'${value}' twice`, "each name once");
    seen.add(value);
  }
}
