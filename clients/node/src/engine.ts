import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { GptossError, type Manifest, oneLine } from "./package.js";

export type ElementType = Manifest["kv_dtype"] | "int64";
export type Data = Float32Array | Uint16Array | BigInt64Array;

/** A graph in ONNX Runtime, and what runs it. */
export interface Engine {
  kernels: "native" | "portable" | "contrib";
  newBinding(): Binding;
  close(): Promise<void>;
}

/** The memory that one sequence has bound to a graph, which reads inputs and writes outputs where they lie. */
export interface Binding {
  bind(way: "input" | "output", name: string, type: ElementType, data: Data, shape: number[]): void;
  run(): Promise<void>;
}

/** Opens a graph in onnxruntime-node as it is. A run holds the main thread until it is done. */
export async function openStock(
  graph: string, kernels: "portable" | "contrib", threads: number, config: Record<string, string>,
): Promise<Engine> {
  const { InferenceSession, Tensor } = await import("onnxruntime-node");
  // The graph is one chain of large ops: one thread between ops. Severity 3: errors.
  const fixed = { interOpNumThreads: 1, logSeverityLevel: 3, extra: config } as const;
  const session = await InferenceSession.create(graph, threads > 0 ? { ...fixed, intraOpNumThreads: threads } : fixed);
  const newBinding = (): Binding => {
    const tensors = { input: {}, output: {} } as Record<"input" | "output", Record<string, InstanceType<typeof Tensor>>>;
    return {
      // A tensor keeps the array it is made of: the same array as past and as present is updated in place.
      bind: (way, name, type, data, shape) => void (tensors[way][name] = new Tensor(type as "float32", data as Float32Array, shape)),
      run: async () => void (await session.run(tensors.input, tensors.output)),
    };
  };
  return { kernels, newBinding, close: () => session.release() };
}

/** The functions of addon/gptoss_ort.cc; what it calls a graph and a binding is opaque here. */
interface Addon {
  kernels(library: string): string;
  open(runtime: string, graph: string, library: string, threads: number, config: Record<string, string>): Promise<unknown>;
  close(graph: unknown): void;
  binding(graph: unknown): unknown;
  bind(binding: unknown, isOutput: boolean, name: string, type: number, data: Data, shape: number[]): void;
  run(binding: unknown): Promise<void>;
}

const require = createRequire(import.meta.url);
const ADDON = fileURLToPath(new URL("../build/Release/gptoss_ort.node", import.meta.url));
const ELEMENT_TYPES: Record<ElementType, number> = { float32: 1, int64: 7, float16: 10, bfloat16: 16 }; // of ONNX

/** Returns the libgptoss_ops to run a package with, or why the native kernels cannot run it. */
export function findNative(manifest: Manifest, given?: string): { library: string } | { missing: string } {
  if (!existsSync(ADDON)) return { missing: "the addon is not built; run npm run build with a C++ compiler" };
  const library = given ?? join(dirname(ADDON), "libgptoss_ops.so");
  if (!existsSync(library)) return { missing: `found no library ${library}; name it, or put it there` };
  let names: string[];
  try {
    names = (require(ADDON) as Addon).kernels(library).split(",");
  } catch (error) {
    throw new GptossError(`${library}: cannot be used (${oneLine(error)}), expected this project's libgptoss_ops`);
  }
  const without = manifest.ops.filter((op) => op.domain === "ai.gptoss" && !names.includes(op.name)).map((op) => op.name);
  return without.length === 0 ? { library } : { missing: `${library} has no kernel for ${without.join(", ")}` };
}

/** Opens a graph with the kernels of `library`, in the ONNX Runtime of onnxruntime-node; runs leave the main thread free. */
export async function openNative(
  graph: string, library: string, threads: number, config: Record<string, string>,
): Promise<Engine> {
  const addon = require(ADDON) as Addon;
  const binaries = join(dirname(dirname(require.resolve("onnxruntime-node"))), "bin/napi-v6", process.platform, process.arch);
  const opened = await addon.open(join(binaries, "libonnxruntime.so.1"), graph, library, threads, config);
  const newBinding = (): Binding => {
    const binding = addon.binding(opened);
    return {
      bind: (way, name, type, data, shape) => addon.bind(binding, way === "output", name, ELEMENT_TYPES[type], data, shape),
      run: () => addon.run(binding),
    };
  };
  return { kernels: "native", newBinding, close: async () => addon.close(opened) };
}
