import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { check, checkInteger, GptossError, oneLine, oneOf } from "./errors.js";
import type { Manifest } from "./manifest.js";
import type { PackageFolder } from "./package.js";
import { checkRuntime, RUNTIME_VERSION } from "./runtime.js";

export interface OpenOptions {
  /**
   * `auto` takes native where it can, and says on stderr where it cannot; `native` refuses then.
   */
  kernels?: "auto" | "native" | "portable";
  /** What the kernels multiply; `bf16` and `int8` are lossy. */
  activations?: "exact" | "bf16" | "int8";
  /** Threads within an op; 0 is one a core. */
  threads?: number;
  /** Path of libgptoss_ops.so; without it the one beside the addon. */
  library?: string;
}

export const OPEN_KEYS = ["kernels", "activations", "threads", "library"];

type Config = Record<string, string>;

/**
 * The memory that one sequence has bound to a graph, which reads inputs and writes outputs where
 * they lie.
 */
export interface Binding {
  bind(
    out: boolean,
    name: string,
    type: Manifest["kv_dtype"] | "int64",
    data: ArrayBufferView,
    dims: number[],
  ): void;
  run(): Promise<unknown>;
}

/** A graph in ONNX Runtime, and what runs it. */
export interface Engine {
  kernels: "native" | "portable" | "contrib";
  newBinding(): Binding;
  close(): void | Promise<void>;
}

/** addon/gptoss_ort.cc */
interface Addon {
  kernels(library: string): string;
  open(
    runtime: string,
    model: string,
    library: string,
    threads: number,
    config: Config,
  ): Omit<Engine, "kernels">;
}

const MOST_THREADS = 1024; // ONNX Runtime starts them all, and hangs at a hundred thousand
// ONNX Runtime's severity "fatal": an error reaches the caller, and is not printed as well.
const SILENT = 4;
const require = createRequire(import.meta.url);
const ADDON = fileURLToPath(new URL("../build/Release/gptoss_ort.node", import.meta.url));
const LIBRARY = join(dirname(ADDON), "libgptoss_ops.so");
const BINARIES = join("../bin/napi-v6", process.platform, process.arch); // of onnxruntime-node
const RUNTIME = join(dirname(require.resolve("onnxruntime-node")), BINARIES, "libonnxruntime.so.1");

/** Opens what runs the graph of a package; what does not fit the graph is refused in our words. */
export async function openEngine(files: PackageFolder, options: OpenOptions): Promise<Engine> {
  const engine = await chooseEngine(files, options);
  const newBinding = (): Binding => {
    const binding = engine.newBinding();
    const bind: Binding["bind"] = (out, name, ...memory) => {
      try {
        binding.bind(out, name, ...memory);
      } catch (error) {
        const what = `${files.graph}: its ${out ? "output" : "input"} '${name}'`;
        throw new GptossError(
          `${what} does not take what the manifest says (${oneLine(error)}); export again`,
        );
      }
    };
    return { bind, run: () => binding.run() };
  };
  return { kernels: engine.kernels, newBinding, close: () => engine.close() };
}

/** Chooses what runs: nothing falls back but kernels `auto`, and that is said. */
async function chooseEngine(files: PackageFolder, options: OpenOptions): Promise<Engine> {
  // From 1.32 on ONNX Runtime tells its makers of every session, unless this is set before.
  process.env.ORT_DISABLE_TELEMETRY ??= "1";
  const { kernels = "auto", activations = "exact", threads = 0, library = LIBRARY } = options;
  oneOf("kernels", kernels, ["auto", "native", "portable"]);
  oneOf("activations", activations, ["exact", "bf16", "int8"]);
  checkInteger("threads", threads, 0, MOST_THREADS);
  check(typeof library === "string", "library", library, "the path of libgptoss_ops.so");
  const { folder, graph, manifest } = files;
  checkRuntime(folder, manifest, RUNTIME_VERSION);
  if (manifest.target === "ort") {
    oneOf("kernels for target ort", kernels, ["auto"]);
    // QMoE of onnxruntime-node 1.30 has no others.
    oneOf("activations for target ort", activations, ["exact"]);
    oneOf("kv_dtype of target ort", manifest.kv_dtype, ["float32", "float16"]);
    // Newer ones multiply int8 activations unless it is 0.
    process.env.ORT_QMOE_CPU_QNBIT_GEMM = "0";
    return openStock(graph, "contrib", threads, {});
  }
  // Which nothing reads without the library.
  const config: Config = { "gptoss.activations": activations };
  const { root } = manifest.weights;
  if (root !== null) config["session.model_external_initializers_file_folder_path"] = root;
  const missing =
    kernels === "portable" ? "found kernels portable" : whyNotNative(manifest, library);
  if (missing === undefined) {
    return { kernels: "native", ...loadAddon().open(RUNTIME, graph, library, threads, config) };
  }
  const needs = whatNeedsNative(manifest, kernels, activations);
  if (needs !== undefined) throw new GptossError(`${needs}: needs the native kernels: ${missing}`);
  if (kernels === "auto") console.error(`gptoss-node: portable kernels run: ${oneLine(missing)}`);
  return openStock(graph, "portable", threads, config);
}

function whatNeedsNative(
  { kv_dtype }: Manifest,
  kernels: string,
  activations: string,
): string | undefined {
  if (kernels === "native") return "kernels native";
  if (activations !== "exact") return `activations ${activations}`;
  if (kv_dtype === "bfloat16") return "kv_dtype bfloat16";
  return undefined;
}

function whyNotNative({ ops, target }: Manifest, library: string): string | undefined {
  if (target === "openvino") return "target openvino has none of their ops";
  if (process.platform !== "linux") return `found ${process.platform}, expected linux`;
  if (!existsSync(ADDON)) return "the addon is not built; run npm run build with a C++ compiler";
  if (!existsSync(library)) return `found no library ${library}; name it, or put it there`;
  try {
    const kernels = loadAddon().kernels(library).split(",");
    const op = ops.find(({ domain, name }) => domain === "ai.gptoss" && !kernels.includes(name));
    return op && `${library} has no kernel for ${op.name}`;
  } catch (error) {
    throw new GptossError(
      `${library}: cannot be used (${oneLine(error)}), expected this project's libgptoss_ops`,
    );
  }
}

function loadAddon(): Addon {
  return require(ADDON) as Addon;
}

/** Opens a graph in onnxruntime-node as it is. A run holds the main thread until it is done. */
async function openStock(
  model: string,
  kernels: Engine["kernels"],
  threads: number,
  extra: Config,
): Promise<Engine> {
  const { env, InferenceSession, Tensor } = await import("onnxruntime-node");
  env.logLevel = "fatal"; // of what the sessions share
  const options = { intraOpNumThreads: threads, logSeverityLevel: SILENT, extra } as const;
  const session = await InferenceSession.create(model, options);
  const newBinding = (): Binding => {
    type Tensors = Record<string, InstanceType<typeof Tensor>>;
    // Without a prototype, whose keys a graph could name.
    const feeds = Object.create(null) as Tensors;
    const fetches = Object.create(null) as Tensors;
    // A tensor keeps the array it is made of: the same array as past and as present is updated in
    // place.
    const bind: Binding["bind"] = (out, name, type, data, dims) => {
      const tensors = out ? fetches : feeds;
      tensors[name] = new Tensor(type as "float32", data as Float32Array, dims);
    };
    return { bind, run: () => session.run(feeds, fetches, { logSeverityLevel: SILENT }) };
  };
  return { kernels, newBinding, close: () => session.release() };
}
