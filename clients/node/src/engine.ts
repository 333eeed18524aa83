import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { GptossError, type Manifest, oneLine } from "./package.js";

export type ElementType = Manifest["kv_dtype"] | "int64";
export type Data = Float32Array | Uint16Array | BigInt64Array;
type Config = Record<string, string>;

/** A graph in ONNX Runtime, and what runs it. */
export interface Engine {
  kernels: "native" | "portable" | "contrib";
  newBinding(): Binding;
  close(): void | Promise<void>;
}

/** The memory that one sequence has bound to a graph, which reads inputs and writes outputs where they lie. */
export interface Binding {
  bind(isOutput: boolean, name: string, type: ElementType, data: Data, shape: number[]): void;
  run(): Promise<unknown>;
}

/** Opens a graph in onnxruntime-node as it is. A run holds the main thread until it is done. */
export async function openStock(
  graph: string, kernels: "portable" | "contrib", threads: number, extra: Config,
): Promise<Engine> {
  const { InferenceSession, Tensor } = await import("onnxruntime-node");
  const fixed = { interOpNumThreads: 1, logSeverityLevel: 3, extra } as const; // one chain of large ops; errors only
  const session = await InferenceSession.create(graph, threads > 0 ? { ...fixed, intraOpNumThreads: threads } : fixed);
  const newBinding = (): Binding => {
    const feeds: Record<string, InstanceType<typeof Tensor>> = {}, fetches: typeof feeds = {};
    return {
      // A tensor keeps the array it is made of: the same array as past and as present is updated in place.
      bind(isOutput, name, type, data, shape) {
        (isOutput ? fetches : feeds)[name] = new Tensor(type as "float32", data as Float32Array, shape);
      },
      run: () => session.run(feeds, fetches),
    };
  };
  return { kernels, newBinding, close: () => session.release() };
}

/** addon/gptoss_ort.cc; what it calls a graph and a binding is opaque here. */
interface Addon {
  kernels(library: string): string;
  open(runtime: string, graph: string, library: string, threads: number, config: Config): object;
  close(graph: object): void;
  binding(graph: object): object;
  bind(binding: object, isOutput: boolean, name: string, type: number, data: Data, shape: number[]): void;
  run(binding: object): Promise<void>;
}

const require = createRequire(import.meta.url);
const ADDON = fileURLToPath(new URL("../build/Release/gptoss_ort.node", import.meta.url));
const ELEMENT_TYPES: Record<ElementType, number> = { float32: 1, int64: 7, float16: 10, bfloat16: 16 }; // of ONNX

/** Returns the libgptoss_ops to run a package with, or why the native kernels cannot run it. */
export function findNative(manifest: Manifest, given?: string): { library: string } | { missing: string } {
  if (process.platform !== "linux") return { missing: `found ${process.platform}, expected linux` };
  if (!existsSync(ADDON)) return { missing: "the addon is not built; run npm run build with a C++ compiler" };
  const library = given ?? join(dirname(ADDON), "libgptoss_ops.so");
  if (!existsSync(library)) return { missing: `found no library ${library}; name it, or put it there` };
  try {
    const kernels = (require(ADDON) as Addon).kernels(library).split(",");
    const op = manifest.ops.find(({ domain, name }) => domain === "ai.gptoss" && !kernels.includes(name));
    return op === undefined ? { library } : { missing: `${library} has no kernel for ${op.name}` };
  } catch (error) {
    throw new GptossError(`${library}: cannot be used (${oneLine(error)}), expected this project's libgptoss_ops`);
  }
}

/** Opens a graph with the kernels of `library`, in onnxruntime-node's ONNX Runtime, and runs it on other threads. */
export function openNative(graph: string, library: string, threads: number, config: Config): Engine {
  const addon = require(ADDON) as Addon;
  const binaries = join(dirname(require.resolve("onnxruntime-node")), "../bin/napi-v6", process.platform, process.arch);
  const opened = addon.open(join(binaries, "libonnxruntime.so.1"), graph, library, threads, config);
  const newBinding = (): Binding => {
    const binding = addon.binding(opened);
    return {
      bind: (isOutput, name, type, ...rest) => addon.bind(binding, isOutput, name, ELEMENT_TYPES[type], ...rest),
      run: () => addon.run(binding),
    };
  };
  return { kernels: "native", newBinding, close: () => addon.close(opened) };
}
