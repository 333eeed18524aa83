import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { checkInteger, GptossError, type Manifest, oneLine, oneOf, type PackageFolder } from "./package.js";

export interface OpenOptions {
  /** `auto` takes native where it can, and says on stderr where it cannot; `native` refuses then. */
  kernels?: "auto" | "native" | "portable";
  /** What the kernels multiply; `bf16` and `int8` are lossy. */
  activations?: "exact" | "bf16" | "int8";
  /** Threads within an op; 0 is one a core. */
  threads?: number;
  /** Path of libgptoss_ops.so; without it the one beside the addon. */
  library?: string;
}

type ElementType = Manifest["kv_dtype"] | "int64";
type Data = Float32Array | Uint16Array | BigInt64Array;
type Config = Record<string, string>;
/** By the names of the graph's inputs or outputs; what a tensor is, is the engine's own. */
export type Tensors = Record<string, object>;

/** A graph in ONNX Runtime, and what runs it. */
export interface Engine {
  kernels: "native" | "portable" | "contrib";
  /** Returns a tensor on the memory of `data`, which runs read and write in place. */
  tensor(type: ElementType, data: Data, shape: number[]): object;
  run(feeds: Tensors, fetches: Tensors): Promise<unknown>;
  close(): void | Promise<void>;
}

/** addon/gptoss_ort.cc; what it calls a graph and a tensor is opaque here. */
interface Addon {
  kernels(library: string): string;
  open(runtime: string, model: string, library: string, threads: number, config: Config): object;
  tensor(graph: object, type: number, data: Data, shape: number[]): object;
  run(graph: object, feeds: Tensors, fetches: Tensors, done: (error: unknown) => void): void;
  close(graph: object): void;
}

const require = createRequire(import.meta.url);
const ADDON = fileURLToPath(new URL("../build/Release/gptoss_ort.node", import.meta.url));
const ELEMENT_TYPES = { float32: 1, int64: 7, float16: 10, bfloat16: 16 }; // of ONNX

/** Chooses what runs: nothing falls back but kernels `auto`, and that is said. */
export async function openEngine({ graph, manifest }: PackageFolder, options: OpenOptions): Promise<Engine> {
  const { kernels = "auto", activations = "exact", threads = 0 } = options;
  const { library = join(dirname(ADDON), "libgptoss_ops.so") } = options;
  oneOf("kernels", kernels, ["auto", "native", "portable"]);
  oneOf("activations", activations, ["exact", "bf16", "int8"]);
  checkInteger("threads", threads, 0, 2 ** 31 - 1);
  if (manifest.target === "ort") {
    oneOf("kernels for target ort", kernels, ["auto"]);
    oneOf("activations for target ort", activations, ["exact"]); // QMoE of onnxruntime-node 1.30 has no others
    oneOf("kv_dtype of target ort", manifest.kv_dtype, ["float32", "float16"]);
    process.env.ORT_QMOE_CPU_QNBIT_GEMM = "0"; // newer ones multiply int8 activations unless it is 0
    return openStock(graph, "contrib", threads, {});
  }
  const { root } = manifest.weights;
  const config: Config = root === null ? {} : { "session.model_external_initializers_file_folder_path": root };
  const missing = kernels === "portable" ? "found kernels portable" : whyNotNative(manifest, library);
  if (missing === undefined)
    return openNative(graph, library, threads, { ...config, "gptoss.activations": activations });
  const needs = kernels === "native" ? "kernels native" : activations !== "exact" ? `activations ${activations}`
    : manifest.kv_dtype === "bfloat16" ? "kv_dtype bfloat16" : undefined;
  if (needs !== undefined) throw new GptossError(`${needs}: needs the native kernels: ${missing}`);
  if (kernels === "auto") console.error(`gptoss-node: portable kernels run: ${missing}`);
  return openStock(graph, "portable", threads, config);
}

function whyNotNative({ ops }: Manifest, library: string): string | undefined {
  if (process.platform !== "linux") return `found ${process.platform}, expected linux`;
  if (!existsSync(ADDON)) return "the addon is not built; run npm run build with a C++ compiler";
  if (!existsSync(library)) return `found no library ${library}; name it, or put it there`;
  try {
    const kernels = (require(ADDON) as Addon).kernels(library).split(",");
    const op = ops.find(({ domain, name }) => domain === "ai.gptoss" && !kernels.includes(name));
    return op && `${library} has no kernel for ${op.name}`;
  } catch (error) {
    throw new GptossError(`${library}: cannot be used (${oneLine(error)}), expected this project's libgptoss_ops`);
  }
}

/** Opens a graph with the kernels of `library`, in onnxruntime-node's ONNX Runtime, and runs it on other threads. */
function openNative(model: string, library: string, threads: number, config: Config): Engine {
  const addon = require(ADDON) as Addon;
  const binaries = join(dirname(require.resolve("onnxruntime-node")), "../bin/napi-v6", process.platform, process.arch);
  const graph = addon.open(join(binaries, "libonnxruntime.so.1"), model, library, threads, config);
  return {
    kernels: "native",
    tensor: (type, ...rest) => addon.tensor(graph, ELEMENT_TYPES[type], ...rest),
    run: promisify(addon.run.bind(addon, graph)),
    close: () => addon.close(graph),
  };
}

/** Opens a graph in onnxruntime-node as it is. A run holds the main thread until it is done. */
async function openStock(model: string, kernels: Engine["kernels"], threads: number, extra: Config): Promise<Engine> {
  const { InferenceSession, Tensor } = await import("onnxruntime-node");
  const options = { intraOpNumThreads: threads, logSeverityLevel: 3, extra } as const; // errors only
  const session = await InferenceSession.create(model, options);
  type Feeds = Parameters<typeof session.run>[0];
  return {
    kernels,
    tensor: (type, data, shape) => new Tensor(type as "float32", data as Float32Array, shape),
    run: (feeds, fetches) => session.run(feeds as Feeds, fetches as Feeds),
    close: () => session.release(),
  };
}
