import { check, checkInteger, GptossError, oneLine } from "./errors.js";
import type { Binding, Engine } from "./engine.js";
import type { Manifest } from "./manifest.js";

const MOST_BYTES = 2 ** 53 - 1;

/**
 * Keys and values of one sequence of up to `capacity` tokens, and which tokens they are. One call
 * of the graph takes at most `chunk` tokens. One caller at a time uses a cache: a generation from
 * its first token to the end of its loop.
 */
export class KVCache {
  /** @internal Bound to the graph, which reads and writes the buffers where they lie. */
  readonly binding: Binding;
  private readonly held: number[] = []; // the tokens whose keys and values are cached
  private farthest = 0; // most tokens held since the cache was empty
  private isHeld = false;
  private readonly rings: { window: number; slots: number }[] = []; // of the window layers
  private readonly kept: number; // first tokens that every window layer keeps

  /** @internal Session.newCache makes them. */
  constructor(
    readonly session: object,
    private readonly engine: Engine,
    { cache, kv_dtype, longest }: Manifest,
    readonly capacity: number,
    readonly chunk: number,
  ) {
    checkInteger("cache capacity", capacity, 1, longest);
    checkInteger("cache chunk", chunk, 1);
    this.binding = engine.newBinding();
    this.kept = Math.min(...cache.filter(({ window }) => window > 0).map((it) => it.sink_tokens));
    for (const { window, sink_tokens, kv_heads, head_dim, ...names } of cache) {
      const slots = this.slots(window, sink_tokens);
      if (window > 0) this.rings.push({ window, slots });
      const shape = [1, kv_heads, slots, head_dim];
      for (const kind of ["key", "value"] as const) {
        const zeros = allocate(kv_dtype, shape);
        this.binding.bind(false, names[`past_${kind}`], kv_dtype, zeros, shape);
        this.binding.bind(true, names[`present_${kind}`], kv_dtype, zeros, shape);
      }
    }
  }

  /**
   * Tokens cached. Set it to a smaller number to take the last ones back. 0 is always possible, and
   * so is what every window layer keeps; else the window layers must still hold the tokens before
   * it.
   */
  get length(): number {
    return this.held.length;
  }

  set length(length: number) {
    this.checkFree();
    checkInteger("cache length", length, 0, this.held.length);
    if (length > 0 && length < this.held.length) this.checkRemembered(length);
    this.held.length = length;
    if (length <= this.kept) this.farthest = length;
  }

  /** The tokens cached, in order. */
  get tokens(): readonly number[] {
    return this.held.slice();
  }

  /** A caller is using it. */
  get busy(): boolean {
    return this.isHeld;
  }

  /** @internal Takes the cache for one caller; what is returned gives it back. */
  hold(): () => void {
    this.checkFree();
    this.isHeld = true;
    return () => {
      this.isHeld = false;
    };
  }

  /** @internal Says that a call is about to write these tokens. */
  willWrite(count: number): void {
    this.farthest = Math.max(this.farthest, this.held.length + count);
  }

  /** @internal Says that a call has written these tokens. */
  append(tokens: readonly number[]): void {
    // One by one: spreading 100,000 arguments overflows the stack.
    for (const token of tokens) this.held.push(token);
  }

  private checkFree(): void {
    check(!this.isHeld, "cache", "another caller using it", "one at a time; make a cache for each");
  }

  /**
   * A slot of a ring holds the last position written to it. After going back to `length`, queries
   * see `window` - 1 positions before them, which nothing may have overwritten. Kept tokens are
   * taken from window and ring alike, so they change nothing of the sum.
   */
  private checkRemembered(length: number): void {
    check(
      this.engine.kernels !== "contrib",
      "cache length",
      length,
      "0: target ort cannot take tokens back",
    );
    for (const { window, slots } of this.rings) {
      const least = this.farthest > slots ? this.farthest - slots + window - 1 : 0;
      const early = this.kept > 0 ? `0 to ${this.kept}` : "0";
      const expected = `${early}, or at least ${least}, which the window layers still hold`;
      check(length <= this.kept || length >= least, "cache length", length, expected);
    }
  }

  /**
   * Full layers never wrap. A ring has room for its window and what one call writes, and a slot
   * beside the kept tokens; GQA compacts its own.
   */
  private slots(window: number, kept: number): number {
    if (window === 0) return this.capacity;
    if (this.engine.kernels === "contrib") return window;
    return Math.max(kept + 1, Math.min(this.capacity, window + this.chunk - 1));
  }
}

function allocate(
  type: Manifest["kv_dtype"],
  shape: readonly number[],
): Float32Array | Uint16Array {
  const size = shape.reduce((product, dimension) => product * dimension);
  const bytes = size * (type === "float32" ? 4 : 2);
  try {
    check(bytes <= MOST_BYTES, "cache", `${bytes} bytes a buffer`, "fewer");
    return type === "float32" ? new Float32Array(size) : new Uint16Array(size);
  } catch (error) {
    const reason = oneLine(error);
    throw new GptossError(
      `cache: a buffer of ${bytes} bytes cannot be allocated (${reason}); lower its capacity`,
    );
  }
}
