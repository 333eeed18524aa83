import { type Binding, type Engine, openEngine, type OpenOptions } from "./engine.js";
import { check, checkInteger, explained, openPackage, type PackageFolder } from "./package.js";
import { Sampler, type Sampling } from "./sampling.js";

/** Keys and values of one sequence of up to `capacity` tokens; one call of the graph takes at most `chunk`. */
export interface KVCache extends Readonly<{ session: Session; capacity: number; chunk: number; binding: Binding }> {
  /** Tokens cached; set to 0 it forgets them. */
  length: number;
  /** A call is running on it. */
  busy: boolean;
}

/** A package opened for running; it serves many caches, also at once. */
export class Session {
  readonly vocab = this.files.manifest.model.vocab_size;
  /** What runs: `native` or `portable`, or `contrib` for target ort. */
  readonly kernels = this.engine.kernels;
  private isOpen = true;

  private constructor(readonly files: PackageFolder, readonly activations: string, private readonly engine: Engine) {}

  static async open(path: string, options: OpenOptions = {}): Promise<Session> {
    const files = openPackage(path);
    return new Session(files, options.activations ?? "exact", await explained(files.graph, openEngine(files, options)));
  }

  newCache(capacity: number, chunk = 512): KVCache {
    checkInteger("cache capacity", capacity, 1);
    checkInteger("cache chunk", chunk, 1);
    check(this.isOpen, "session", "it closed", "an open one");
    const { cache, kv_dtype: type } = this.files.manifest;
    const binding = this.engine.newBinding();
    for (const { window, kv_heads, head_dim, ...names } of cache) {
      // Full layers never wrap; a ring has room for its window and what one call writes, and GQA compacts its own.
      const ring = this.kernels === "contrib" ? window : Math.min(capacity, window + chunk - 1);
      const shape = [1, kv_heads, window === 0 ? capacity : ring, head_dim];
      const size = shape.reduce((product, dimension) => product * dimension);
      for (const kind of ["key", "value"] as const) {
        const zeros = type === "float32" ? new Float32Array(size) : new Uint16Array(size);
        binding.bind(false, names[`past_${kind}`], type, zeros, shape);
        binding.bind(true, names[`present_${kind}`], type, zeros, shape);
      }
    }
    return { session: this, capacity, chunk, binding, length: 0, busy: false };
  }

  /** Runs tokens after what the cache holds; returns logits (positions, V) of ascending positions in these tokens. */
  async forward(tokens: readonly number[], cache: KVCache, positions = [tokens.length - 1]): Promise<Float32Array> {
    check(this.isOpen, "session", "it closed", "an open one");
    this.checkTokens(tokens);
    positions.forEach((at, i) => checkInteger(`positions[${i}]`, at, i && positions[i - 1]! + 1, tokens.length - 1));
    check(cache.session === this, "cache", "another session's", "one of this session");
    check(!cache.busy, "cache", "a call running on it", "one at a time");
    checkInteger("cache: tokens cached and new", cache.length + tokens.length, 1, cache.capacity);
    cache.busy = true;
    try {
      const logits: Float32Array = new Float32Array(positions.length * this.vocab);
      for (let begin = 0, end = 0, done = 0; end < tokens.length; begin = end) {
        end = Math.min(begin + cache.chunk, tokens.length);
        // Target ort gives the logits of a call's last token alone, so a call ends at each one wanted.
        if (this.kernels === "contrib") end = Math.min(end, (positions[done] ?? end) + 1);
        const here = positions.filter((at) => begin <= at && at < end).map((at) => at - begin);
        const rows = logits.subarray(done * this.vocab, (done += here.length) * this.vocab);
        // Every call gives logits; where none are wanted nobody reads them.
        const [kept, out] = here.length > 0 ? [here, rows] : [[0], new Float32Array(this.vocab)];
        await this.run(tokens.slice(begin, end), cache, kept, out);
        cache.length += end - begin;
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
    const input = (name: string, values: readonly number[], ...shape: number[]): void =>
      binding.bind(false, name, "int64", BigInt64Array.from(values, BigInt), shape);
    const total = length + tokens.length;
    input("input_ids", tokens, 1, tokens.length);
    if (this.kernels === "contrib") {
      input("attention_mask", new Array<number>(total).fill(1), 1, total);
    } else {
      input("past_lengths", [length], 1);
      input("new_lengths", [tokens.length], 1);
      input("logit_positions", kept, 1, kept.length);
    }
    binding.bind(true, "logits", "float32", logits, [1, kept.length, this.vocab]);
    await explained("ONNX Runtime failed while running the graph", binding.run());
  }

  private checkTokens(tokens: readonly number[]): void {
    check(tokens.length > 0, "prompt", "no token", "at least one");
    tokens.forEach((token, i) => checkInteger(`prompt: token ${i}`, token, 0, this.vocab - 1));
  }
}

/** A generation goes on after what `cache` holds and leaves its tokens there; without it, it has an own one. */
export type GenerateOptions = { sampling?: Sampling; maxNewTokens?: number; cache?: KVCache };

/**
 * Token ids as they are generated; leaving the loop over them ends it. A stop token is the last id. The last id has
 * not been run: a caller who keeps the cache passes it first when going on.
 */
export class Generation implements AsyncIterable<number> {
  readonly tokens: number[] = [];
  /** `length` after the tokens asked for or at the capacity; null while it goes on. */
  finishReason: "stop" | "length" | null = null;
  prefillSeconds = 0;
  /** Later runs and the sampling; the consumer's time between tokens is not in it. */
  decodeSeconds = 0;
  private readonly sampler = new Sampler(this.options.sampling ?? {}, this.prompt);

  constructor(
    private readonly session: Session,
    private readonly prompt: readonly number[],
    private readonly options: GenerateOptions,
  ) {
    checkInteger("max-new-tokens", options.maxNewTokens ?? 256, 1);
    checkInteger("prompt: number of tokens", prompt.length, 1, session.files.manifest.model.max_position_embeddings);
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<number, void, void> {
    const { session, prompt, tokens } = this;
    const { maxNewTokens = 256, sampling } = this.options;
    const capacity = Math.min(prompt.length + maxNewTokens, session.files.manifest.model.max_position_embeddings);
    const cache = this.options.cache ?? session.newCache(capacity);
    const stops = sampling?.stopTokens ?? session.files.stopTokens;
    for (let next = prompt; this.finishReason === null; next = tokens.slice(-1)) {
      const begin = performance.now();
      const logits = await session.forward(next, cache);
      const ran = performance.now();
      const token = this.sampler.choose(logits);
      tokens.push(token);
      if (stops.includes(token)) this.finishReason = "stop";
      else if (tokens.length === maxNewTokens || cache.length === cache.capacity) this.finishReason = "length";
      if (next === prompt) this.prefillSeconds = (ran - begin) / 1000;
      this.decodeSeconds += (performance.now() - (next === prompt ? ran : begin)) / 1000;
      yield token;
    }
  }
}
