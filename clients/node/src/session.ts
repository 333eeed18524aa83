import { type Binding, type Engine, findNative, openNative, openStock } from "./engine.js";
import { Generation, type GenerateOptions } from "./generation.js";
import { checkInteger, GptossError, oneLine, oneOf, openPackage, type PackageFolder } from "./package.js";

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

/** Keys and values of one sequence of up to `capacity` tokens; one call of the graph takes at most `chunk`. */
export interface KVCache {
  readonly session: Session;
  readonly capacity: number;
  readonly chunk: number;
  readonly binding: Binding;
  /** Tokens cached; set to 0 it forgets them. */
  length: number;
  /** A call is running on it. */
  busy: boolean;
}

/** A package opened for running; it serves many caches, also at once. */
export class Session {
  readonly vocab: number;
  private isOpen = true;

  private constructor(
    readonly files: PackageFolder,
    readonly activations: string,
    private readonly engine: Engine,
  ) {
    this.vocab = files.manifest.model.vocab_size;
  }

  static async open(path: string, options: OpenOptions = {}): Promise<Session> {
    const { kernels = "auto", activations = "exact", threads = 0 } = options;
    oneOf("kernels", kernels, ["auto", "native", "portable"]);
    oneOf("activations", activations, ["exact", "bf16", "int8"]);
    checkInteger("threads", threads, 0, 2 ** 31 - 1);
    const files = openPackage(path);
    const engine = openEngine(files, { ...options, kernels, activations, threads });
    return new Session(files, activations, await oneLineErrors(files.graph, engine));
  }

  /** What runs: `native` or `portable`, or `contrib` for target ort. */
  get kernels(): Engine["kernels"] {
    return this.engine.kernels;
  }

  newCache(capacity: number, chunk = 512): KVCache {
    checkInteger("cache capacity", capacity, 1);
    checkInteger("cache chunk", chunk, 1);
    this.checkOpen();
    const binding = this.engine.newBinding();
    const { cache, kv_dtype: type } = this.files.manifest;
    for (const { window, kv_heads, head_dim, ...names } of cache) {
      // Full layers never wrap; a ring has room for its window and what one call writes, and GQA compacts its own.
      const ring = this.kernels === "contrib" ? window : Math.min(capacity, window + chunk - 1);
      const shape = [1, kv_heads, window === 0 ? capacity : ring, head_dim];
      const size = shape.reduce((product, dimension) => product * dimension);
      for (const [past, present] of [[names.past_key, names.present_key], [names.past_value, names.present_value]]) {
        const zeros = type === "float32" ? new Float32Array(size) : new Uint16Array(size);
        binding.bind(false, past!, type, zeros, shape);
        binding.bind(true, present!, type, zeros, shape);
      }
    }
    return { session: this, capacity, chunk, binding, length: 0, busy: false };
  }

  /** Runs tokens after what the cache holds; returns logits (positions, V) of ascending positions in these tokens. */
  async forward(tokens: readonly number[], cache: KVCache, positions = [tokens.length - 1]): Promise<Float32Array> {
    const { vocab } = this;
    this.checkOpen();
    this.checkTokens(tokens);
    positions.forEach((at, i) => checkInteger(`positions[${i}]`, at, i && positions[i - 1]! + 1, tokens.length - 1));
    if (cache.session !== this) throw new GptossError("cache: found another session's, expected one of this session");
    if (cache.busy) throw new GptossError("cache: found a call running on it, expected one at a time");
    checkInteger("cache: tokens cached and new", cache.length + tokens.length, 1, cache.capacity);
    cache.busy = true;
    try {
      const logits = new Float32Array(positions.length * vocab);
      for (let begin = 0, done = 0; begin < tokens.length; ) {
        let end = Math.min(begin + cache.chunk, tokens.length);
        // Target ort gives the logits of a call's last token alone, so a call ends at each one wanted.
        if (this.kernels === "contrib") end = Math.min(end, (positions[done] ?? end) + 1);
        const here = positions.filter((at) => begin <= at && at < end).map((at) => at - begin);
        const rows = logits.subarray(done * vocab, (done + here.length) * vocab);
        // Every call gives logits; where none are wanted nobody reads them.
        if (here.length > 0) await this.run(tokens.slice(begin, end), cache, here, rows);
        else await this.run(tokens.slice(begin, end), cache, [0], new Float32Array(vocab));
        cache.length += end - begin;
        [begin, done] = [end, done + here.length];
      }
      return logits;
    } finally {
      cache.busy = false;
    }
  }

  /** Continues a sequence; nothing runs before the first token is asked for. */
  generate(tokens: readonly number[], options: GenerateOptions = {}): Generation {
    this.checkTokens(tokens);
    return new Generation(this, tokens, options);
  }

  /** Frees the weights, as soon as its caches are garbage too. */
  async close(): Promise<void> {
    if (this.isOpen) await this.engine.close();
    this.isOpen = false;
  }

  private async run(tokens: readonly number[], { binding, length }: KVCache, kept: number[], logits: Float32Array) {
    const input = (name: string, values: readonly number[], shape: number[]): void =>
      binding.bind(false, name, "int64", BigInt64Array.from(values, BigInt), shape);
    const total = length + tokens.length;
    input("input_ids", tokens, [1, tokens.length]);
    if (this.kernels === "contrib") {
      input("attention_mask", new Array<number>(total).fill(1), [1, total]);
    } else {
      input("past_lengths", [length], [1]);
      input("new_lengths", [tokens.length], [1]);
      input("logit_positions", kept, [1, kept.length]);
    }
    binding.bind(true, "logits", "float32", logits, [1, kept.length, this.vocab]);
    await oneLineErrors("ONNX Runtime failed while running the graph", binding.run());
  }

  private checkOpen(): void {
    if (!this.isOpen) throw new GptossError("session: found it closed, expected an open one");
  }

  private checkTokens(tokens: readonly number[]): void {
    if (tokens.length === 0) throw new GptossError("prompt: found no token, expected at least one");
    tokens.forEach((token, i) => checkInteger(`prompt: token ${i}`, token, 0, this.vocab - 1));
  }
}

type Chosen = OpenOptions & Required<Pick<OpenOptions, "kernels" | "activations" | "threads">>;

/** Chooses what runs: nothing falls back but kernels `auto`, and that is said. */
async function openEngine({ graph, manifest }: PackageFolder, options: Chosen): Promise<Engine> {
  const { kernels, activations, threads, library } = options;
  if (manifest.target === "ort") {
    oneOf("kernels for target ort", kernels, ["auto"]);
    oneOf("activations for target ort", activations, ["exact"]); // QMoE of onnxruntime-node 1.30 has no others
    oneOf("kv_dtype of target ort", manifest.kv_dtype, ["float32", "float16"]);
    process.env.ORT_QMOE_CPU_QNBIT_GEMM = "0"; // newer ones multiply int8 activations unless it is 0
    return openStock(graph, "contrib", threads, {});
  }
  const { root } = manifest.weights;
  const config = root === null ? {} : { "session.model_external_initializers_file_folder_path": root };
  const native = kernels === "portable" ? { missing: "found kernels portable" } : findNative(manifest, library);
  if ("library" in native)
    return openNative(graph, native.library, threads, { ...config, "gptoss.activations": activations });
  const needs = kernels === "native" ? "kernels native" : activations !== "exact" ? `activations ${activations}`
    : manifest.kv_dtype === "bfloat16" ? "kv_dtype bfloat16" : undefined;
  if (needs !== undefined) throw new GptossError(`${needs}: needs the native kernels: ${native.missing}`);
  if (kernels === "auto") console.error(`gptoss-node: portable kernels run: ${native.missing}`);
  return openStock(graph, "portable", threads, config);
}

/** Says what failed before ONNX Runtime's own words. */
async function oneLineErrors<T>(what: string, promise: Promise<T>): Promise<T> {
  return promise.catch((error: unknown) => {
    throw error instanceof GptossError ? error : new GptossError(`${what}: ${oneLine(error)}`);
  });
}
