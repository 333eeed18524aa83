// Sessions on the demo package: every way to run it proves itself, caches are independent, mistakes are named.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Session, verify } from "gptoss-node";
import { all, changed, golden, NATIVE, NO_ORT, ORT_PACKAGE, PACKAGE, PORTABLE, refused, short } from "./support.mjs";

const TOLERANCE = 1e-3; // of the golden logits, the limit of the verdict

const WAYS = [
  ["native", PACKAGE, NATIVE, "native", false],
  ["portable", PACKAGE, PORTABLE, "portable", false],
  ["ort", ORT_PACKAGE, { threads: 1 }, "contrib", NO_ORT],
];

for (const [name, folder, options, kernels, skip] of WAYS)
  test(`${name}: passes the golden vectors, also in small chunks`, { skip }, async () => {
    const session = await Session.open(folder, options);
    assert.equal(session.kernels, kernels);
    const verdict = await verify(session);
    assert.ok(verdict.passed, JSON.stringify(verdict));
    assert.equal(verdict.cases.length, golden.cases.length);
    assert.ok(verdict.cases.every(({ greedy_equal }) => greedy_equal === 64));

    const { token_ids } = golden.cases.find(({ token_ids }) => token_ids.length > 100);
    const whole = await session.forward(token_ids, session.newCache(token_ids.length), [5, 40, 99]);
    const cache = session.newCache(token_ids.length, 7);
    const chunked = await session.forward(token_ids, cache, [5, 40, 99]);
    assert.equal(cache.length, token_ids.length);
    assert.equal(chunked.length, 3 * session.vocab);
    chunked.forEach((logit, i) => assert.ok(Math.abs(logit - whole[i]) < TOLERANCE, `${logit} and ${whole[i]}`));
    await session.close();
  });

test("generations on different caches run at once and do not disturb each other", async () => {
  const session = await Session.open(PACKAGE, NATIVE);
  const generations = golden.cases.map(({ token_ids, greedy }) =>
    all(session.generate(token_ids, { maxNewTokens: greedy.length, sampling: { stopTokens: [] } })),
  );
  assert.deepEqual(await Promise.all(generations), golden.cases.map(({ greedy }) => greedy));
});

test("a native run leaves the main thread free", async () => {
  const session = await Session.open(PACKAGE, NATIVE);
  const tokens = Array.from({ length: 900 }, (_, i) => i);
  let ticks = 0;
  const timer = setInterval(() => (ticks += 1), 1);
  await session.forward(tokens, session.newCache(900, 900));
  clearInterval(timer);
  assert.ok(ticks >= 3, `${ticks} timers during one call of the graph`);
});

test("a kept cache goes on where it was, and starts over at length 0", async () => {
  const session = await Session.open(PACKAGE, NATIVE);
  const cache = session.newCache(200);
  const options = { cache, sampling: { stopTokens: [] } };
  const begin = await all(session.generate(short.token_ids, { ...options, maxNewTokens: 30 }));
  const rest = await all(session.generate(begin.slice(-1), { ...options, maxNewTokens: 34 }));
  assert.deepEqual([...begin, ...rest], short.greedy);
  cache.length = 0;
  assert.deepEqual(await all(session.generate(short.token_ids, { ...options, maxNewTokens: 64 })), short.greedy);
});

test("a generation ends at a stop token, at its length, at the capacity, and when its loop is left", async () => {
  const session = await Session.open(PACKAGE, NATIVE);
  const stopping = session.generate(short.token_ids, { sampling: { stopTokens: [short.greedy[3]] } });
  assert.deepEqual([await all(stopping), stopping.finishReason], [short.greedy.slice(0, 4), "stop"]);
  const counted = session.generate(short.token_ids, { maxNewTokens: 5 });
  assert.deepEqual([await all(counted), counted.finishReason], [short.greedy.slice(0, 5), "length"]);
  const cache = session.newCache(short.token_ids.length + 2);
  const full = session.generate(short.token_ids, { cache });
  assert.deepEqual([await all(full), full.finishReason], [short.greedy.slice(0, 3), "length"]);
  const left = session.generate(short.token_ids);
  for await (const _ of left) if (left.tokens.length === 2) break;
  assert.deepEqual([left.tokens, left.finishReason], [short.greedy.slice(0, 2), null]);
});

test("the package's own stop tokens end a generation", async (t) => {
  const stop = short.greedy[5];
  const folder = changed(t, "generation_config.json", (config) => (config.eos_token_id = [2043, stop]));
  const session = await Session.open(folder, NATIVE);
  const generation = session.generate(short.token_ids);
  assert.deepEqual([await all(generation), generation.finishReason], [short.greedy.slice(0, 6), "stop"]);
});

test("mistakes in a call are named before anything runs", async () => {
  const session = await Session.open(PACKAGE, NATIVE);
  const cache = session.newCache(4);
  await refused(session.forward([], cache), /no token/);
  await refused(session.forward([2048], cache), /token 0: found 2048, expected an integer from 0 to 2047/);
  await refused(session.forward([1.5], cache), /found 1.5/);
  await refused(session.forward([1, 2], cache, [1, 0]), /positions\[1\]: found 0/);
  await refused(session.forward([1, 2, 3, 4, 5], cache), /found 5, expected an integer from 1 to 4/);
  assert.throws(() => session.generate([-1]), /found -1/);
  assert.throws(() => session.generate(new Array(1025).fill(1)), /found 1025, expected an integer from 1 to 1024/);
  assert.throws(() => session.newCache(0), /cache capacity: found 0/);
  assert.equal(cache.length, 0);
  const other = await Session.open(PACKAGE, NATIVE);
  await refused(session.forward([1], other.newCache(4)), /another session/);
  const running = session.forward([1], cache);
  await refused(session.forward([1], cache), /one at a time/);
  await running;
  await session.close();
  await refused(session.forward([1], cache), /closed/);
});

test("a cache in use refuses every other caller, at once", async () => {
  for (const options of [NATIVE, PORTABLE]) {
    const session = await Session.open(PACKAGE, options);
    const cache = session.newCache(100);
    const running = session.forward(short.token_ids, cache);
    await refused(session.forward([1], cache), /one at a time/);
    await refused(all(session.generate([1], { cache })), /one at a time/);
    assert.throws(() => (cache.length = 0), /one at a time/);
    await refused(session.close(), /1 calls running on it/);
    await running;
    assert.equal(cache.length, short.token_ids.length);

    // A generation has the cache between its tokens too, until its loop ends.
    cache.length = 0;
    const generation = session.generate(short.token_ids, { cache, sampling: { stopTokens: [] } });
    for await (const token of generation) {
      await refused(session.forward([1], cache), /one at a time/);
      assert.throws(() => (cache.length = 0), /one at a time/);
      assert.equal(token, short.greedy[generation.tokens.length - 1]);
      if (generation.tokens.length === 3) break;
    }
    await refused(all(generation), /a second loop over it/);
    await session.forward([1], cache);
    await session.close();
  }
});

test("many callers on one cache leave one result, that of the first", async () => {
  const session = await Session.open(PACKAGE, NATIVE);
  const cache = session.newCache(1000);
  const calls = Array.from({ length: 50 }, () => session.forward(short.token_ids, cache));
  const outcomes = await Promise.allSettled(calls);
  assert.deepEqual(outcomes.map(({ status }) => status), ["fulfilled", ...new Array(49).fill("rejected")]);
  assert.equal(cache.length, short.token_ids.length);
  const alone = await session.forward(short.token_ids, session.newCache(1000));
  assert.deepEqual(outcomes[0].value, alone);
});

test("the repetition penalty knows what the cache holds, also after taking tokens back", async () => {
  const session = await Session.open(PACKAGE, NATIVE);
  const settings = { maxNewTokens: 24, sampling: { repetitionPenalty: 1.7, stopTokens: [] } };
  const prompt = [...short.token_ids, ...short.greedy.slice(0, 30)];
  const whole = await all(session.generate(prompt, settings));
  for (const split of [1, 10, prompt.length - 1]) {
    const cache = session.newCache(200);
    await session.forward(prompt.slice(0, split), cache);
    assert.deepEqual(cache.tokens, prompt.slice(0, split));
    assert.deepEqual(await all(session.generate(prompt.slice(split), { ...settings, cache })), whole);
    // What was taken back is not said any more.
    cache.length = split;
    assert.deepEqual(await all(session.generate(prompt.slice(split), { ...settings, cache })), whole);
  }
  // And going on after a generation is going on with its text.
  const cache = session.newCache(200);
  const begin = await all(session.generate(prompt, { ...settings, cache, maxNewTokens: 8 }));
  const rest = await all(session.generate(begin.slice(-1), { ...settings, cache, maxNewTokens: 16 }));
  assert.deepEqual([...begin, ...rest], whole);
});

test("tokens are taken back as far as the rings remember, and give the same logits again", async () => {
  for (const options of [NATIVE, PORTABLE]) {
    const session = await Session.open(PACKAGE, options);
    const tokens = golden.cases.find(({ token_ids }) => token_ids.length > 100).token_ids.slice(0, 100);
    const cache = session.newCache(200, 8); // rings of 39 slots: 100 tokens go round more than twice
    const expected = await session.forward(tokens, cache);
    const assertEqual = (logits) =>
      logits.forEach((logit, i) => assert.ok(Math.abs(logit - expected[i]) < TOLERANCE, `${logit} and ${expected[i]}`));
    assert.throws(() => (cache.length = 101), /expected an integer from 0 to 100/);
    assert.throws(() => (cache.length = 91), /cache length: found 91, expected 0, or at least 92/);
    cache.length = 92;
    assertEqual(await session.forward(tokens.slice(92), cache));
    cache.length = 97;
    await session.forward([5, 6], cache); // another end
    cache.length = 97;
    assertEqual(await session.forward(tokens.slice(97), cache));
    assert.throws(() => (cache.length = 91), /at least 92/); // small steps do not add up
    cache.length = 0;
    assertEqual(await session.forward(tokens, cache));
  }
});

test("the addon refuses memory that was given away, and a second call on a binding", async () => {
  const session = await Session.open(PACKAGE, NATIVE);
  const { binding } = session.newCache(8);
  const ids = BigInt64Array.of(1n);
  for (const name of ["input_ids", "past_lengths", "new_lengths", "logit_positions"])
    binding.bind(false, name, "int64", name === "input_ids" ? ids : BigInt64Array.of(name === "new_lengths" ? 1n : 0n),
      name === "input_ids" || name === "logit_positions" ? [1, 1] : [1]);
  const logits = new Float32Array(session.vocab);
  binding.bind(true, "logits", "float32", logits, [1, 1, session.vocab]);
  const running = binding.run();
  assert.throws(() => binding.run(), /one at a time/);
  assert.throws(() => binding.bind(true, "logits", "float32", logits, [1, 1, session.vocab]), /one at a time/);
  await running;
  structuredClone(ids.buffer, { transfer: [ids.buffer] });
  assert.throws(() => binding.run(), /input_ids: found an array whose memory was transferred/);
  assert.throws(() => binding.bind(false, "x", "float8", logits, [1]), /element type: found float8/);
  assert.throws(() => binding.bind(false, "input_ids", "float32", logits, [1 << 20, 1 << 20]), /input_ids/);
});

test("a float16 cache that overflows is named, with what mends it", async () => {
  const session = await Session.open(PACKAGE, NATIVE);
  session.files.manifest.kv_dtype = "float16"; // the demo's cache holds float32: only the words are tried here
  const forward = session.run;
  session.run = async () => new Float32Array(session.vocab).fill(NaN);
  await refused(all(session.generate([1])), /logits: .*NaN.*cache is float16.*--kv-dtype float32/).catch(async (error) => {
    session.run = forward;
    throw error;
  });
});

test("wrong types are named, whatever they are", async () => {
  const session = await Session.open(PACKAGE, NATIVE);
  const cache = session.newCache(8);
  const odd = [null, undefined, 5, "x", {}, [undefined], [null], ["1"], [1n], [NaN], [[1]], new Array(3), () => 1, Symbol("x")];
  for (const value of odd) {
    await refused(session.forward(value, cache), /prompt/);
    await refused(Promise.resolve().then(() => session.generate(value)), /prompt/);
    if (value !== undefined) await refused(session.forward([1], cache, value), /positions/);
    if (value !== cache) await refused(session.forward([1], value), /cache/);
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      if (value !== undefined) await refused(Session.open(PACKAGE, value), /options/);
      if (value !== undefined) await refused(Promise.resolve().then(() => session.generate([1], value)), /options/);
    }
    if (typeof value !== "string") await refused(Session.open(value), /package/);
  }
  for (const [options, message] of [
    [{ maxNewTokens: "3" }, /max-new-tokens: found 3/],
    [{ maxTokens: 3 }, /options: its key: found maxTokens/],
    [{ sampling: { temperature: "1" } }, /temperature/],
    [{ sampling: { stopTokens: [2048] } }, /stop tokens: an id: found 2048, expected an integer from 0 to 2047/],
    [{ cache: {} }, /cache/],
  ])
    await refused(Promise.resolve().then(() => session.generate([1], options)), message);
  for (const [capacity, chunk, message] of [
    [2 ** 52, 512, /cache: a buffer/],
    [2 ** 62, 512, /cache capacity/],
    ["8", 512, /cache capacity/],
    [8, 0, /cache chunk/],
    [8, null, /cache chunk/],
  ])
    await refused(Promise.resolve().then(() => session.newCache(capacity, chunk)), message);
  await refused(Session.open(PACKAGE, { ...NATIVE, threads: 100_000 }), /threads: found 100000, expected an integer from 0 to 1024/);
  await refused(Session.open(PACKAGE, { library: 5 }), /library: found 5/);
  assert.equal(cache.length, 0);
});

test("a caller's arrays may change while a call runs", async () => {
  const session = await Session.open(PACKAGE, NATIVE);
  const tokens = [...short.token_ids];
  const positions = [tokens.length - 1];
  const running = session.forward(tokens, session.newCache(100, 2), positions);
  tokens.fill(-1);
  positions[0] = 10 ** 6;
  const logits = await running;
  assert.equal(logits.indexOf(Math.max(...logits)), short.greedy[0]);
});

test("mistakes in opening are named", async (t) => {
  const refusedToOpen = (folder, options, message) => refused(Session.open(folder, options), message);
  await refusedToOpen("nowhere", NATIVE, /nowhere: not a package/);
  await refusedToOpen(PACKAGE, { ...NATIVE, kernels: "fast" }, /kernels: found fast, expected auto or native or portable/);
  await refusedToOpen(PACKAGE, { ...NATIVE, threads: 0.5 }, /threads: found 0.5/);
  await refusedToOpen(PACKAGE, { kernels: "native", library: "missing.so" }, /found no library missing.so/);
  const noLibrary = { kernels: "native", library: `${PACKAGE}/model.onnx` };
  await refusedToOpen(PACKAGE, noLibrary, /expected this project's libgptoss_ops/);
  await refusedToOpen(PACKAGE, { ...PORTABLE, activations: "bf16" }, /activations bf16: needs the native kernels/);
  for (const [key, value, message] of [
    ["format_version", 2, /format_version: found 2, expected 1/],
    ["target", "npu", /target: found npu, expected portable or ort/],
    ["graph", "other.onnx", /other.onnx: no such file/],
  ])
    await refusedToOpen(changed(t, "manifest.json", (manifest) => (manifest[key] = value)), NATIVE, message);
  const grown = changed(t, "manifest.json", ({ weights }) => (weights.files[0].size += 1));
  await refusedToOpen(grown, NATIVE, /model.safetensors: bytes.*: found \d+, expected \d+/);
  const rewritten = changed(t, "manifest.json", ({ weights }) => {
    weights.mode = "link";
    weights.files[0].mtime_ns += 1e9;
  });
  await refusedToOpen(rewritten, NATIVE, /modification time/);
  const half = changed(t, "manifest.json", (manifest) => (manifest.kv_dtype = "bfloat16"));
  await refusedToOpen(half, PORTABLE, /kv_dtype bfloat16: needs the native kernels/);
  const op = { domain: "ai.gptoss", name: "New", version: 1, count: 1 };
  const lacking = changed(t, "manifest.json", ({ ops }) => ops.push(op));
  await refusedToOpen(lacking, NATIVE, /has no kernel for New/);
});

test("activations bf16 reach the kernels", async () => {
  const exact = await Session.open(PACKAGE, NATIVE);
  const narrow = await Session.open(PACKAGE, { ...NATIVE, activations: "bf16" });
  const [one, other] = await Promise.all([exact, narrow].map((s) => s.forward(short.token_ids, s.newCache(20))));
  const largest = Math.max(...one.map((logit, i) => Math.abs(logit - other[i])));
  assert.ok(largest > 1e-4 && largest < 1, `${largest}`);
});

test("target ort refuses what it cannot do", { skip: NO_ORT }, async () => {
  for (const options of [{ kernels: "native" }, { kernels: "portable" }, { activations: "bf16" }])
    await assert.rejects(Session.open(ORT_PACKAGE, options), /for target ort: found/);
});
