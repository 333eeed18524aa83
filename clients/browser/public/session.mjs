/** Session: runs a package's graph in ONNX Runtime's WebAssembly build, the only one to use: the default build ignores
 * attention sinks and windows. C slots of a layer's cache, K kv heads, D head dim, V vocabulary. */
import * as ort from "/node_modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs";
import { callEnds, expect, fetchBytes, slots } from "./package.mjs";
import { sampler } from "./sampling.mjs";

/** @typedef {import("./package.mjs").Manifest} Manifest */
// Errors alone: ONNX Runtime would warn that caches are copied at every step.
const QUIET = /** @type {const} */ ({ logSeverityLevel: 3 });

/** Keys and values of one sequence: one tensor (1, K, C, D) for each, filled with zeros, under its input's name. */
export class Cache {
  length = 0; // tokens cached

  /** @param {Manifest} manifest @param {number} capacity  tokens */
  constructor(manifest, capacity) {
    this.capacity = capacity;
    /** @type {Record<string, ort.Tensor>} */
    this.tensors = {};
    for (const layer of manifest.cache) {
      const dims = [1, layer.kv_heads, slots(manifest.target, layer.window, capacity), layer.head_dim];
      const size = dims.reduce((product, dim) => product * dim);
      const zeros = () => (manifest.kv_dtype === "float16" ? new Uint16Array(size) : new Float32Array(size));
      for (const name of [layer.past_key, layer.past_value])
        this.tensors[name] = new ort.Tensor(manifest.kv_dtype, zeros(), dims);
    }
  }
}

export class Session {
  /** @param {Manifest} manifest @param {ort.InferenceSession} graph */
  constructor(manifest, graph) {
    this.manifest = manifest;
    this.graph = graph;
    this.vocab = /** @type {number} */ (manifest.model.vocab_size);
  }

  /** Download graph and weights and load them. @param {Manifest} manifest @param {URL} folder
   * @param {import("./package.mjs").OnProgress} onProgress */
  static async open(manifest, folder, onProgress) {
    const graph = await fetchBytes(new URL(manifest.graph, folder), { onProgress });
    const externalData = [];
    for (const { name, size } of manifest.weights.files)
      externalData.push({ path: name, data: await fetchBytes(new URL(name, folder), { size, onProgress }) });
    ort.env.wasm.numThreads = crossOriginIsolated ? Math.min(navigator.hardwareConcurrency, 8) : 1;
    onProgress("ONNX Runtime opens the graph", 0, 0);
    const options = { executionProviders: ["wasm"], externalData, ...QUIET };
    const opened = ort.InferenceSession.create(graph, options).catch((error) => {
      throw new Error(`${manifest.graph}: ONNX Runtime cannot open it (${error.message})`);
    });
    return new Session(manifest, await opened);
  }

  /** Append tokens to the cache; return the logits (V) after each of those at `positions`, 0 the first of `tokens`.
   * @param {number[]} tokens @param {Cache} cache @param {number[]} [positions]  rising */
  async forward(tokens, cache, positions = [tokens.length - 1]) {
    expect("tokens", "none", tokens.length > 0, "at least one");
    const wrong = tokens.find((id) => !(Number.isInteger(id) && id >= 0 && id < this.vocab));
    expect("token id", wrong, wrong === undefined, `0 to ${this.vocab - 1}`);
    const total = cache.length + tokens.length;
    expect("tokens in the cache", total, total <= cache.capacity, `at most its capacity, ${cache.capacity}`);
    /** @type {Float32Array[]} */
    const rows = [];
    let begin = 0;
    for (const end of callEnds(this.manifest.target, tokens.length, positions)) {
      const wanted = positions.filter((p) => p >= begin && p < end).map((p) => p - begin);
      const logits = await this.#run(tokens.slice(begin, end), cache, wanted.length > 0 ? wanted : [0]);
      wanted.forEach((_, row) => rows.push(logits.slice(row * this.vocab, (row + 1) * this.vocab)));
      begin = end;
    }
    return rows;
  }

  /** Run the graph once; return logits (kept, V), of target ort (1, V) of the last token.
   * @param {number[]} tokens @param {Cache} cache @param {number[]} kept */
  async #run(tokens, cache, kept) {
    const total = cache.length + tokens.length;
    const portable = { past_lengths: int64([cache.length], [1]), new_lengths: int64([tokens.length], [1]),
      logit_positions: int64(kept, [1, kept.length]) };
    const contrib = { attention_mask: int64(new Array(total).fill(1), [1, total]) };
    const lengths = this.manifest.target === "ort" ? contrib : portable;
    const feeds = { input_ids: int64(tokens, [1, tokens.length]), ...lengths, ...cache.tensors };
    const outputs = await this.graph.run(feeds, QUIET);
    // This build copies tensors into its memory and back, and leaves outputs it is given unwritten: past and present
    // cannot share a buffer, so what it returns is the next call's past.
    for (const layer of this.manifest.cache) {
      cache.tensors[layer.past_key] = outputs[layer.present_key];
      cache.tensors[layer.past_value] = outputs[layer.present_value];
    }
    cache.length += tokens.length;
    return /** @type {Float32Array} */ (outputs.logits.data);
  }

  /** Generate tokens; ends with `stop` after a stop token and with `length` after `most` tokens.
   * @param {number[]} prompt @param {import("./sampling.mjs").Sampling} sampling
   * @param {{most: number, stopTokens: number[]}} limits */
  async *generate(prompt, sampling, { most, stopTokens }) {
    expect("tokens to generate", most, Number.isInteger(most) && most > 0, "an integer above 0");
    const choose = sampler(sampling, prompt);
    const cache = new Cache(this.manifest, prompt.length + most);
    for (let next = prompt, count = 1; ; count++) {
      const [logits] = await this.forward(next, cache);
      const token = choose(logits);
      const finish = stopTokens.includes(token) ? "stop" : count === most ? "length" : null;
      yield { token, finish };
      if (finish) return;
      next = [token];
    }
  }
}

/** @param {number[]} values @param {number[]} dims */
const int64 = (values, dims) => new ort.Tensor("int64", BigInt64Array.from(values, BigInt), dims);
