import { KVCache } from "./cache.js";
import { type Engine, OPEN_KEYS, openEngine, type OpenOptions } from "./engine.js";
import { check, checkInteger, checkOptions, explained, GptossError } from "./errors.js";
import { type GenerateOptions, Generation } from "./generation.js";
import { PackageFolder } from "./package.js";

/** A package opened for running; it serves many caches, also at once. */
export class Session {
  /** Tokens of the vocabulary, which is the width of logits. */
  readonly vocab: number;
  /** What runs: `native` or `portable`, or `contrib` for target ort. */
  readonly kernels: Engine["kernels"];
  private isOpen = true;
  private running = 0; // calls of the graph

  private constructor(
    readonly files: PackageFolder,
    readonly activations: string,
    private readonly engine: Engine,
  ) {
    this.vocab = files.manifest.vocab_size;
    this.kernels = engine.kernels;
  }

  static async open(path: string, options: OpenOptions = {}): Promise<Session> {
    checkOptions("options", options, OPEN_KEYS);
    const files = PackageFolder.open(path);
    const engine = await explained(files.graph, openEngine(files, options));
    return new Session(files, options.activations ?? "exact", engine);
  }

  /**
   * Makes the cache of one sequence of up to `capacity` tokens, which runs in calls of at most
   * `chunk` tokens.
   */
  newCache(capacity: number, chunk = 512): KVCache {
    this.checkOpen();
    return new KVCache(this, this.engine, this.files.manifest, capacity, chunk);
  }

  /**
   * Runs tokens after what the cache holds; returns logits (positions, V) of ascending positions in
   * these tokens.
   */
  async forward(
    tokens: readonly number[],
    cache: KVCache,
    positions?: readonly number[],
  ): Promise<Float32Array> {
    this.checkCall(tokens, cache);
    const release = cache.hold();
    try {
      if (cache.length === 0) this.files.checkUnchanged();
      return await this.run(
        tokens,
        cache,
        positions === undefined ? [tokens.length - 1] : positions,
      );
    } finally {
      release();
    }
  }

  /** Continues a sequence; nothing runs before the first token is asked for. */
  generate(tokens: readonly number[], options: GenerateOptions = {}): Generation {
    this.checkOpen();
    this.checkTokens(tokens);
    return new Generation(this, tokens, options);
  }

  /** Frees the weights, as soon as its caches are garbage too; refused while a call runs. */
  async close(): Promise<void> {
    check(
      this.running === 0,
      "session",
      `${this.running} calls running on it`,
      "none; await them first",
    );
    if (!this.isOpen) return;
    this.isOpen = false;
    await this.engine.close();
  }

  /** @internal Checks what a caller wants to run, before it takes the cache. */
  checkCall(tokens: readonly number[], cache: KVCache): void {
    this.checkOpen();
    this.checkTokens(tokens);
    check(cache instanceof KVCache, "cache", cache, "one of Session.newCache");
    check(cache.session === this, "cache", "another session's", "one of this session");
    checkInteger("cache: tokens cached and new", cache.length + tokens.length, 1, cache.capacity);
  }

  /** @internal Runs tokens on a cache that the caller holds. */
  async run(
    given: readonly number[],
    cache: KVCache,
    at: readonly number[],
  ): Promise<Float32Array> {
    // Copies: the caller may change its arrays while the calls run.
    const [tokens, positions] = [copy("prompt", given), copy("positions", at)];
    this.checkCall(tokens, cache);
    checkPositions(positions, tokens.length);
    const logits = allocateLogits(positions.length * this.vocab);
    this.running += 1;
    try {
      for (let begin = 0, end = 0, done = 0; begin < tokens.length; begin = end) {
        end = Math.min(begin + cache.chunk, tokens.length);
        // Target ort gives the logits of a call's last token alone, so a call ends at each one
        // wanted.
        if (this.kernels === "contrib") end = Math.min(end, (positions[done] ?? end) + 1);
        const wanted = positions.filter((at) => begin <= at && at < end).map((at) => at - begin);
        const part = logits.subarray(done * this.vocab, (done + wanted.length) * this.vocab);
        await this.call(tokens.slice(begin, end), cache, wanted, part);
        done += wanted.length;
      }
      return logits;
    } finally {
      this.running -= 1;
    }
  }

  /** @internal Adds to an error of numbers that are not finite what may have made them so. */
  explainNumbers(error: unknown): unknown {
    const isNumbers = error instanceof GptossError && /NaN|finite|Infinity/.test(error.message);
    if (!isNumbers || this.files.manifest.kv_dtype !== "float16") return error;
    const cure = "export the package with --kv-dtype float32";
    return new GptossError(`${error.message}: its cache is float16, which ends at 65504: ${cure}`);
  }

  /** Calls the graph once. It always gives logits; where none are wanted nobody reads them. */
  private async call(
    tokens: readonly number[],
    cache: KVCache,
    wanted: number[],
    into: Float32Array,
  ): Promise<void> {
    const kept = wanted.length > 0 ? wanted : [0];
    const logits = wanted.length > 0 ? into : new Float32Array(this.vocab);
    const { binding, length: past } = cache;
    const input = (name: string, values: readonly number[], ...shape: number[]): void =>
      binding.bind(false, name, "int64", BigInt64Array.from(values, BigInt), shape);
    input("input_ids", tokens, 1, tokens.length);
    if (this.kernels === "contrib") {
      const mask = new BigInt64Array(past + tokens.length).fill(1n);
      binding.bind(false, "attention_mask", "int64", mask, [1, mask.length]);
    } else {
      input("past_lengths", [past], 1);
      input("new_lengths", [tokens.length], 1);
      input("logit_positions", kept, 1, kept.length);
    }
    binding.bind(true, "logits", "float32", logits, [1, kept.length, this.vocab]);
    cache.willWrite(tokens.length);
    try {
      await explained("ONNX Runtime failed while running the graph", binding.run());
    } catch (error) {
      throw this.explainNumbers(error);
    }
    cache.append(tokens);
  }

  private checkOpen(): void {
    check(this.isOpen, "session", "it closed", "an open one");
  }

  private checkTokens(tokens: readonly number[]): void {
    check(Array.isArray(tokens), "prompt", tokens, "a list of token ids");
    check(tokens.length > 0, "prompt", "no token", "at least one");
    for (let i = 0; i < tokens.length; i += 1)
      checkInteger(`prompt: token ${i}`, tokens[i], 0, this.vocab - 1);
  }
}

function copy(name: string, values: readonly number[]): readonly number[] {
  check(Array.isArray(values), name, values, "a list of integers");
  return values.slice();
}

function checkPositions(positions: readonly number[], count: number): void {
  for (let i = 0; i < positions.length; i += 1) {
    checkInteger(`positions[${i}]`, positions[i], i === 0 ? 0 : positions[i - 1]! + 1, count - 1);
  }
}

function allocateLogits(size: number): Float32Array {
  try {
    return new Float32Array(size);
  } catch {
    throw new GptossError(
      `logits: found ${size} numbers wanted, expected what memory holds; ask for fewer positions`,
    );
  }
}
