/**
 * Session: runs a package's graph in ONNX Runtime's WebAssembly build, the only one to use: the
 * default build ignores attention sinks and windows. C slots of a layer's cache, K kv heads, D head
 * dim, V vocabulary.
 */
import * as ort from "/node_modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs";
import { callEnds, slots } from "./calls.mjs";
import { ClientError, expect, messageOf } from "./errors.mjs";
import { fetchModel } from "./package.mjs";
import { checkRuntime } from "./runtime.mjs";
import { sampler } from "./sampling.mjs";

/**
 * @typedef {import("./manifest.mjs").Manifest} Manifest
 * @typedef {import("./sampling.mjs").Sampling} Sampling
 */

// Errors alone: ONNX Runtime would warn that caches are copied at every call.
const QUIET = /** @type {const} */ ({ logSeverityLevel: 3 });
const MOST_CACHE_BYTES = 2 ** 30; // it lies in WebAssembly's 4 GiB twice while a call runs
const MOST_THREADS = 8;

/**
 * The state of one sequence: its tokens, and a tensor (1, K, C, D) of zeros under the name of each
 * input that is to hold their keys or values. Only one call at a time may use it.
 */
export class Cache {
  /** @type {number[]} */
  tokens = []; // cached, in their order
  /** @type {Record<string, ort.Tensor>} */
  tensors = {};
  #inUse = false;

  /** @param {Manifest} manifest @param {number} capacity  tokens */
  constructor(manifest, capacity) {
    const { longest } = manifest;
    const fits = Number.isInteger(capacity) && capacity > 0 && capacity <= longest;
    expect("capacity in tokens", capacity, fits, `an integer, 1 to ${longest}`);
    this.capacity = capacity;
    const shapes = manifest.cache.map((layer) => {
      return [1, layer.kv_heads, slots(manifest.target, layer, capacity), layer.head_dim];
    });
    const elementBytes = manifest.kv_dtype === "float16" ? 2 : 4;
    const bytes = shapes.reduce((sum, shape) => sum + 2 * elementBytes * elements(shape), 0);
    const most = `at most ${MOST_CACHE_BYTES}; ask for fewer tokens`;
    expect(`cache of ${capacity} tokens in bytes`, bytes, bytes <= MOST_CACHE_BYTES, most);
    for (const [i, { past_key: key, past_value: value }] of manifest.cache.entries())
      for (const name of [key, value]) this.tensors[name] = zeros(manifest.kv_dtype, shapes[i]);
    // The mask of target ort: a call takes as many as there are tokens.
    this.ones = new BigInt64Array(manifest.target === "ort" ? capacity : 0).fill(1n);
  }

  /**
   * Make a call that reads and writes this cache; refuse it at once while another one runs.
   * @template T
   * @param {() => Promise<T>} call
   */
  async use(call) {
    this.acquire();
    try {
      return await call();
    } finally {
      this.release();
    }
  }

  acquire() {
    expect(
      "cache",
      "one that another call is using",
      !this.#inUse,
      "a cache for each call, or one call at a time",
    );
    this.#inUse = true;
  }

  release() {
    this.#inUse = false;
  }
}

export class Session {
  /** @param {Manifest} manifest  checked @param {ort.InferenceSession} graph */
  constructor(manifest, graph) {
    this.manifest = manifest;
    this.graph = graph;
    this.vocab = manifest.vocab_size;
  }

  /**
   * Download graph and weights, check and load them.
   * @param {Manifest} manifest
   * @param {URL} folder
   * @param {import("./fetch.mjs").OnProgress} [onProgress]
   */
  static async open(manifest, folder, onProgress) {
    checkRuntime(manifest, ort.env.versions.web ?? "none"); // before anything is downloaded
    const { graph, weights } = await fetchModel(manifest, folder, onProgress);
    const externalData = weights.map(({ name, bytes }) => ({ path: name, data: bytes }));
    ort.env.wasm.numThreads = crossOriginIsolated
      ? Math.min(navigator.hardwareConcurrency, MOST_THREADS)
      : 1;
    onProgress?.("ONNX Runtime opens the graph", 0, 0);
    const options = { executionProviders: ["wasm"], externalData, ...QUIET };
    try {
      return new Session(manifest, await ort.InferenceSession.create(graph, options));
    } catch (error) {
      throw new ClientError(`${manifest.graph}: ONNX Runtime cannot open it (${messageOf(error)})`);
    }
  }

  /**
   * Append tokens to the cache; return the logits (V) after each of those at `positions`, 0 the
   * first of `tokens`.
   * @param {number[]} tokens
   * @param {Cache} cache
   * @param {number[]} [positions]  rising
   */
  async forward(tokens, cache, positions = [tokens.length - 1]) {
    return cache.use(() => this.#append(tokens, cache, positions));
  }

  /**
   * Generate tokens after those of the cache and the prompt; a step holds the token and why it is
   * the last one: `stop` after a stop token, `length` after `most` tokens or in a full cache. The
   * cache is in use until the loop is left. The last token is not in the cache: to go on, begin the
   * next prompt with it.
   * @param {number[]} prompt
   * @param {Sampling} sampling
   * @param {{most: number, stopTokens: number[], cache?: Cache}} options  without a cache, a
   *   temporary one is created
   */
  async *generate(prompt, sampling, { most, stopTokens, cache: given }) {
    expect(
      "tokens to generate",
      most,
      Number.isSafeInteger(most) && most > 0,
      "an integer above 0",
    );
    expect("prompt", "no tokens", prompt.length > 0, "at least one");
    const cache = given ?? new Cache(this.manifest, prompt.length + most);
    cache.acquire();
    try {
      const choose = sampler(sampling, [...cache.tokens, ...prompt]);
      let next = prompt;
      for (let count = 1; ; count++) {
        const [logits] = await this.#append(next, cache, [next.length - 1]);
        const token = choose(logits);
        const full = count === most || cache.tokens.length === cache.capacity;
        const finish = stopTokens.includes(token) ? "stop" : full ? "length" : null;
        yield { token, finish };
        if (finish) return;
        next = [token];
      }
    } finally {
      cache.release();
    }
  }

  /**
   * Do what `forward` says, with a cache in use.
   * @param {number[]} tokens
   * @param {Cache} cache
   * @param {number[]} positions
   */
  async #append(tokens, cache, positions) {
    expect("tokens", "none", tokens.length > 0, "at least one");
    const wrong = tokens.find((id) => !(Number.isInteger(id) && id >= 0 && id < this.vocab));
    expect("token id", wrong, wrong === undefined, `0 to ${this.vocab - 1}`);
    const total = cache.tokens.length + tokens.length;
    expect(
      "tokens in the cache",
      total,
      total <= cache.capacity,
      `at most its capacity, ${cache.capacity}`,
    );
    const rising = positions.every(
      (position, i) => position > (positions[i - 1] ?? -1) && position < tokens.length,
    );
    expect(
      "positions",
      String(positions),
      rising && positions.every(Number.isInteger),
      "rising places in the tokens",
    );
    /** @type {Float32Array[]} */
    const found = [];
    let begin = 0;
    for (const end of callEnds(this.manifest.target, tokens.length, positions)) {
      const wanted = positions.filter((position) => position >= begin && position < end);
      // Every call returns some logits, wanted or not.
      const kept = wanted.length > 0 ? wanted.map((position) => position - begin) : [0];
      const logits = await this.#run(tokens.slice(begin, end), cache, kept);
      for (const i of wanted.keys())
        found.push(logits.slice(i * this.vocab, (i + 1) * this.vocab));
      begin = end;
    }
    return found;
  }

  /**
   * Run the graph once; return the logits (kept, V), of target ort (1, V) of the last token.
   * @param {number[]} tokens
   * @param {Cache} cache
   * @param {number[]} kept
   */
  async #run(tokens, cache, kept) {
    const past = cache.tokens.length;
    const total = past + tokens.length;
    const contrib = this.manifest.target === "ort";
    /** @type {Record<string, ort.Tensor>} */
    const feeds = { input_ids: int64(tokens, [1, tokens.length]), ...cache.tensors };
    if (contrib) {
      feeds.attention_mask = new ort.Tensor("int64", cache.ones.subarray(0, total), [1, total]);
    } else {
      feeds.past_lengths = int64([past], [1]);
      feeds.new_lengths = int64([tokens.length], [1]);
      feeds.logit_positions = int64(kept, [1, kept.length]);
    }
    const outputs = await this.#compute(feeds);
    const logits = this.#output(outputs, "logits", "float32", [
      1,
      contrib ? 1 : kept.length,
      this.vocab,
    ]);
    // This build copies tensors into its memory and back, and leaves outputs that it is given
    // unwritten. So past and present cannot share a buffer: what it returns is the next past.
    /** @type {Record<string, ort.Tensor>} */
    const tensors = {};
    for (const layer of this.manifest.cache) {
      for (const [from, to] of [
        [layer.present_key, layer.past_key],
        [layer.present_value, layer.past_value],
      ])
        tensors[to] = this.#output(outputs, from, this.manifest.kv_dtype, cache.tensors[to].dims);
    }
    cache.tensors = tensors;
    for (const token of tokens) cache.tokens.push(token);
    return /** @type {Float32Array} */ (logits.data);
  }

  /** @param {Record<string, ort.Tensor>} feeds */
  async #compute(feeds) {
    try {
      return await this.graph.run(feeds, QUIET);
    } catch (error) {
      throw new ClientError(
        `${this.manifest.graph}: ONNX Runtime cannot run it (${messageOf(error)})`,
      );
    }
  }

  /**
   * Return an output, if it is what the manifest promises.
   * @param {ort.InferenceSession.OnnxValueMapType} outputs
   * @param {string} name
   * @param {string} type
   * @param {readonly number[]} dims
   */
  #output(outputs, name, type, dims) {
    const tensor = /** @type {ort.Tensor | undefined} */ (outputs[name]);
    const found = tensor ? `${tensor.type} (${tensor.dims})` : undefined;
    const expected = `${type} (${dims})`;
    expect(`${this.manifest.graph}: output ${name}`, found, found === expected, expected);
    return /** @type {ort.Tensor} */ (tensor);
  }
}

/** @param {number[]} values @param {number[]} dims */
const int64 = (values, dims) => new ort.Tensor("int64", BigInt64Array.from(values, BigInt), dims);

/** @param {"float32" | "float16"} type @param {number[]} dims */
function zeros(type, dims) {
  const size = elements(dims);
  return new ort.Tensor(
    type,
    type === "float16" ? new Uint16Array(size) : new Float32Array(size),
    dims,
  );
}

/** @param {number[]} dims */
const elements = (dims) => dims.reduce((product, dim) => product * dim);
