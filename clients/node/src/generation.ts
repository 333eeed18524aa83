import type { KVCache } from "./cache.js";
import { check, checkInteger, checkOptions } from "./errors.js";
import { Sampler, type Sampling } from "./sampling.js";
import type { Session } from "./session.js";

export interface GenerateOptions {
  sampling?: Sampling;
  /** 256 without it. */
  maxNewTokens?: number;
  /**
   * The generation goes on after what it holds and leaves its tokens there; without it, a temporary
   * one is made.
   */
  cache?: KVCache;
}

const DEFAULT_NEW_TOKENS = 256;

/**
 * Token ids as they are generated; leaving the loop over them ends it. A stop token is the last id.
 * The last id has not been run: a caller who keeps the cache passes it first when going on. The
 * tokens that the cache holds count as said, so going on gives what the whole prompt at once gives.
 */
export class Generation implements AsyncIterable<number> {
  readonly tokens: number[] = [];
  /** `length` after the tokens asked for or at the capacity; null while it goes on. */
  finishReason: "stop" | "length" | null = null;
  prefillSeconds = 0;
  /** Later runs and the sampling; the consumer's time between tokens is not in it. */
  decodeSeconds = 0;
  private readonly maxNewTokens: number;
  private readonly sampler: Sampler;
  private readonly stops: ReadonlySet<number>;
  private readonly prompt: readonly number[];
  private hasBegun = false;

  /** @internal Session.generate makes them. */
  constructor(
    private readonly session: Session,
    prompt: readonly number[],
    private readonly options: GenerateOptions,
  ) {
    this.prompt = prompt.slice();
    checkOptions("options", options, ["sampling", "maxNewTokens", "cache"]);
    const { sampling = {}, maxNewTokens = DEFAULT_NEW_TOKENS, cache } = options;
    checkInteger("max-new-tokens", maxNewTokens, 1);
    checkInteger("prompt: number of tokens", prompt.length, 1, this.longest);
    if (cache !== undefined) session.checkCall(prompt, cache);
    this.maxNewTokens = maxNewTokens;
    this.sampler = new Sampler(sampling, prompt);
    // Some checkpoints name stop tokens beyond their vocabulary; those of the caller are checked.
    for (const id of options.sampling?.stopTokens ?? []) {
      if (!session.files.stopTokens.includes(id))
        checkInteger("stop tokens: an id", id, 0, session.vocab - 1);
    }
    this.stops = new Set(sampling.stopTokens ?? session.files.stopTokens);
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<number, void, void> {
    check(!this.hasBegun, "generation", "a second loop over it", "one; call generate again");
    this.hasBegun = true;
    const { session, prompt } = this;
    const capacity = Math.min(prompt.length + this.maxNewTokens, this.longest);
    const cache = this.options.cache ?? session.newCache(capacity);
    const release = cache.hold();
    try {
      session.files.checkUnchanged();
      this.sampler.see(cache.tokens);
      for (let next = prompt; this.finishReason === null; next = this.tokens.slice(-1))
        yield await this.step(next, cache);
    } finally {
      release();
    }
  }

  /** Runs tokens and returns the one that follows. */
  private async step(next: readonly number[], cache: KVCache): Promise<number> {
    const begin = performance.now();
    const logits = await this.session.run(next, cache, [next.length - 1]);
    const ran = performance.now();
    const token = this.choose(logits);
    this.tokens.push(token);
    if (this.stops.has(token)) this.finishReason = "stop";
    else if (this.tokens.length === this.maxNewTokens || cache.length === cache.capacity)
      this.finishReason = "length";
    const isPrefill = this.tokens.length === 1;
    if (isPrefill) this.prefillSeconds = (ran - begin) / 1000;
    this.decodeSeconds += (performance.now() - (isPrefill ? ran : begin)) / 1000;
    return token;
  }

  private choose(logits: Float32Array): number {
    try {
      return this.sampler.choose(logits);
    } catch (error) {
      throw this.session.explainNumbers(error);
    }
  }

  /** Most tokens of a sequence. */
  private get longest(): number {
    return this.session.files.manifest.longest;
  }
}
