import { checkInteger } from "./package.js";
import { Sampler, type Sampling } from "./sampling.js";
import type { KVCache, Session } from "./session.js";

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
      let begin = performance.now();
      const logits = await session.forward(next, cache);
      if (next === prompt) [this.prefillSeconds, begin] = [secondsSince(begin), performance.now()];
      const token = this.sampler.choose(logits);
      tokens.push(token);
      if (stops.includes(token)) this.finishReason = "stop";
      else if (tokens.length === maxNewTokens || cache.length === cache.capacity) this.finishReason = "length";
      this.decodeSeconds += secondsSince(begin);
      yield token;
    }
  }
}

/** Since a time that performance.now() gave. */
export function secondsSince(begin: number): number {
  return (performance.now() - begin) / 1000;
}
