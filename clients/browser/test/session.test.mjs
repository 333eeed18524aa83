import assert from "node:assert/strict";
import { test } from "node:test";
import { Tensor } from "onnxruntime-common";
import { GREEDY } from "../public/sampling.mjs";
import { Cache, Session } from "../public/session.mjs";
import { manifestOf } from "./small-package.mjs";

const VOCAB = 16;
const PENALTY = { ...GREEDY, penalty: 2 };
const ANY = { most: 4, stopTokens: [] };

/**
 * A graph whose cache holds the sum of all tokens of the sequence; its logits favour the token of
 * that sum.
 * @param {Partial<{before: () => Promise<void>, outputs: Record<string, any>}>} [changes]
 */
function fakeGraph({ before = async () => {}, outputs = {} } = {}) {
  return {
    async run(/** @type {Record<string, any>} */ feeds) {
      await before();
      const past = feeds["past_key_values.0.key"];
      const sum =
        past.data[0] +
        feeds.input_ids.data.reduce(
          (/** @type {number} */ total, /** @type {bigint} */ id) => total + Number(id),
          0,
        );
      const kept = feeds.logit_positions.dims[1];
      const row = Float32Array.from(
        { length: VOCAB },
        (_, id) => 8 - ((id - sum + 64 * VOCAB) % VOCAB),
      );
      const logits = new Tensor(
        "float32",
        Float32Array.from({ length: kept * VOCAB }, (_, i) => row[i % VOCAB]),
        [1, kept, VOCAB],
      );
      const state = () =>
        new Tensor(
          "float32",
          Float32Array.from(past.data, () => sum),
          past.dims,
        );
      return { logits, "present.0.key": state(), "present.0.value": state(), ...outputs };
    },
  };
}

const sessionOf = (/** @type {any} */ graph, manifest = manifestOf()) =>
  new Session(manifest, graph);
const tokensOf = async (/** @type {AsyncIterable<{token: number}>} */ steps) => {
  const tokens = [];
  for await (const { token } of steps) tokens.push(token);
  return tokens;
};

test("a cache that is continued says what the whole prompt at once says", async () => {
  const session = sessionOf(fakeGraph());
  const prompt = [3, 5, 8, 1];
  const whole = await tokensOf(session.generate(prompt, PENALTY, { most: 8, stopTokens: [] }));
  assert.notDeepEqual(
    whole,
    await tokensOf(session.generate(prompt, GREEDY, { most: 8, stopTokens: [] })),
  );
  for (let cut = 1; cut < prompt.length; cut++) {
    const cache = new Cache(session.manifest, 64);
    await session.forward(prompt.slice(0, cut), cache);
    const options = { most: 3, stopTokens: [], cache };
    const begun = await tokensOf(session.generate(prompt.slice(cut), PENALTY, options));
    const rest = session.generate(begun.slice(-1), PENALTY, { ...options, most: 5 });
    assert.deepEqual([...begun, ...(await tokensOf(rest))], whole);
    assert.deepEqual(cache.tokens, [...prompt, ...whole.slice(0, -1)]);
  }
});

test("a cache in use refuses a second call at once", async () => {
  let finish = () => {};
  const held = new Promise((resolve) => (finish = () => resolve(null)));
  const session = sessionOf(fakeGraph({ before: async () => void (await held) }));
  const cache = new Cache(session.manifest, 64);
  const error = {
    name: "ClientError",
    message: /^cache: found one that another call is using, expected/,
  };
  const running = session.forward([1, 2], cache);
  await assert.rejects(session.forward([3], cache), error);
  await assert.rejects(session.generate([3], GREEDY, { ...ANY, cache }).next(), error);
  const other = session.forward([3], new Cache(session.manifest, 64)); // another cache is free
  finish();
  await Promise.all([running, other]);
  assert.deepEqual(cache.tokens, [1, 2]);
  await session.forward([3], cache);

  const steps = session.generate([4], GREEDY, { ...ANY, cache });
  await steps.next();
  await assert.rejects(session.forward([5], cache), error); // between two tokens as well
  await steps.return(undefined); // what leaving a loop does
  await session.forward([5], cache);
});

test("a failed call leaves the cache as it was, and free", async () => {
  const session = sessionOf({ run: () => Promise.reject(17) });
  const cache = new Cache(session.manifest, 64);
  const error = {
    name: "ClientError",
    message: "model.onnx: ONNX Runtime cannot run it (threw 17)",
  };
  await assert.rejects(session.forward([1], cache), error);
  await assert.rejects(session.forward([1], cache), error);
  assert.deepEqual(cache.tokens, []);
});

test("a text ends with a stop token, after the tokens asked for, or in a full cache", async () => {
  const session = sessionOf(fakeGraph());
  const finishOf = async (/** @type {any} */ options) => {
    const steps = [];
    for await (const step of session.generate([1, 2], GREEDY, options)) steps.push(step);
    return [steps.length, steps.at(-1)?.finish];
  };
  assert.deepEqual(await finishOf({ most: 4, stopTokens: [] }), [4, "length"]);
  assert.deepEqual(await finishOf({ most: 4, stopTokens: [6] }), [2, "stop"]); // 3, then 6
  assert.deepEqual(
    await finishOf({ most: 100, stopTokens: [], cache: new Cache(session.manifest, 4) }),
    [3, "length"],
  );
});

test("each layer of a cache has its own shape", () => {
  const names = (/** @type {number} */ i) => ({ past_key: `k${i}`, past_value: `v${i}` });
  const cache = [
    { window: 0, sink_tokens: 0, kv_heads: 2, head_dim: 4, ...names(0) },
    { window: 5, sink_tokens: 0, kv_heads: 1, head_dim: 8, ...names(1) },
    { window: 7, sink_tokens: 3, kv_heads: 3, head_dim: 2, ...names(2) },
  ];
  const { tensors } = new Cache(manifestOf({ cache, longest: 1024 }), 1024);
  const found = Object.entries(tensors).map(([name, { dims }]) => [name, dims]);
  const [full, ring, kept] = [
    [1, 2, 1024, 4],
    [1, 1, 516, 8],
    [1, 3, 518, 2],
  ];
  const expected = { k0: full, v0: full, k1: ring, v1: ring, k2: kept, v2: kept };
  assert.deepEqual(Object.fromEntries(found), expected);
});

test("what cannot be run is refused in one line", async () => {
  const session = sessionOf(fakeGraph());
  const cache = new Cache(session.manifest, 4);
  /** @type {[() => Promise<any>, RegExp][]} */
  const refused = [
    [() => session.forward([], cache), /^tokens: found none, expected at least one/],
    [() => session.forward([VOCAB], cache), /^token id: found 16, expected 0 to 15/],
    [() => session.forward([-1], cache), /^token id: found -1/],
    [() => session.forward([1.5], cache), /^token id: found 1.5/],
    [() => session.forward([NaN], cache), /^token id: found NaN/],
    [
      () => session.forward([1, 2, 3, 4, 5], cache),
      /^tokens in the cache: found 5, expected at most its capacity, 4/,
    ],
    [() => session.forward([1, 2], cache, [2]), /^positions: found 2/],
    [() => session.forward([1, 2], cache, [1, 0]), /^positions: found 1,0/],
    [() => session.forward([1, 2], cache, [0.5]), /^positions: found 0.5/],
    [() => session.generate([], GREEDY, ANY).next(), /^prompt: found no tokens/],
    [
      () => session.generate([1], GREEDY, { ...ANY, most: 2 ** 40 }).next(),
      /^capacity in tokens: found 1099511627777, expected an integer, 1 to 64/,
    ],
  ];
  for (const most of /** @type {any[]} */ ([0, -1, NaN, 1.5, Infinity, null, "3", undefined]))
    refused.push([
      () => session.generate([1], GREEDY, { ...ANY, most }).next(),
      /^tokens to generate: found/,
    ]);
  for (const [attempt, message] of refused)
    await assert.rejects(attempt, { name: "ClientError", message });
  const layer = { ...manifestOf().cache[0], kv_heads: 2 ** 16 };
  const wide = manifestOf({ cache: [layer], longest: 4096 });
  const message = /^cache of 4096 tokens in bytes: found 4294967296, expected at most 1073741824/;
  assert.throws(() => new Cache(wide, 4096), { name: "ClientError", message });
  // A cache of window layers alone is small whatever its capacity.
  const rings = manifestOf({ cache: [{ ...manifestOf().cache[0], window: 4 }] });
  for (const manifest of [session.manifest, rings, { ...rings, target: "ort" }])
    for (const capacity of [0, -1, 2 ** 62, NaN, 1.5, 1e9])
      assert.throws(() => new Cache(manifest, capacity), { name: "ClientError" });
  assert.deepEqual(cache.tokens, []);
});

test("outputs that are not what the manifest promises are refused", async () => {
  const tensor = (/** @type {number[]} */ dims) =>
    new Tensor("float32", new Float32Array(dims.reduce((a, b) => a * b)), dims);
  for (const outputs of [
    { logits: undefined },
    { logits: tensor([1, 1, VOCAB - 1]) },
    { logits: new Tensor("int64", new BigInt64Array(VOCAB), [1, 1, VOCAB]) },
    { "present.0.key": undefined },
    { "present.0.value": tensor([1, 1, 7, 2]) },
  ]) {
    const session = sessionOf(fakeGraph({ outputs }));
    const cache = new Cache(session.manifest, 4);
    await assert.rejects(session.forward([1], cache), {
      name: "ClientError",
      message: /^model.onnx: output /,
    });
    assert.deepEqual(cache.tokens, []);
  }
});
