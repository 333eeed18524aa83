// Caches on the demo package: one caller at a time, tokens taken back, what the sampler knows of
// them, their memory.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { Session } from "gptoss-node";
import { all, golden, NATIVE, PACKAGE, PORTABLE, refused, short } from "./support.mjs";

const TOLERANCE = 1e-3; // of logits from calls of other lengths, the limit of the verdict

test("a kept cache goes on where it was, and starts over at length 0", async () => {
  const session = await Session.open(PACKAGE, NATIVE);
  const cache = session.newCache(200);
  const options = { cache, sampling: { stopTokens: [] } };
  const begin = await all(session.generate(short.token_ids, { ...options, maxNewTokens: 30 }));
  const rest = await all(session.generate(begin.slice(-1), { ...options, maxNewTokens: 34 }));
  assert.deepEqual([...begin, ...rest], short.greedy);
  cache.length = 0;
  assert.deepEqual(
    await all(session.generate(short.token_ids, { ...options, maxNewTokens: 64 })),
    short.greedy,
  );
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
  assert.deepEqual(
    outcomes.map(({ status }) => status),
    ["fulfilled", ...new Array(49).fill("rejected")],
  );
  assert.equal(cache.length, short.token_ids.length);
  const alone = await session.forward(short.token_ids, session.newCache(1000));
  assert.deepEqual(outcomes[0].value, alone);
});

test("the repetition penalty knows what the cache holds, also after it shrank", async () => {
  const session = await Session.open(PACKAGE, NATIVE);
  const settings = { maxNewTokens: 24, sampling: { repetitionPenalty: 1.7, stopTokens: [] } };
  const prompt = [...short.token_ids, ...short.greedy.slice(0, 30)];
  const whole = await all(session.generate(prompt, settings));
  for (const split of [1, 10, prompt.length - 1]) {
    const cache = session.newCache(200);
    await session.forward(prompt.slice(0, split), cache);
    assert.deepEqual(cache.tokens, prompt.slice(0, split));
    assert.deepEqual(
      await all(session.generate(prompt.slice(split), { ...settings, cache })),
      whole,
    );
    // What was taken back is not said any more.
    cache.length = split;
    assert.deepEqual(
      await all(session.generate(prompt.slice(split), { ...settings, cache })),
      whole,
    );
  }
  // And going on after a generation is going on with its text.
  const cache = session.newCache(200);
  const begin = await all(session.generate(prompt, { ...settings, cache, maxNewTokens: 8 }));
  const rest = await all(
    session.generate(begin.slice(-1), { ...settings, cache, maxNewTokens: 16 }),
  );
  assert.deepEqual([...begin, ...rest], whole);
});

test("tokens are taken back as far as the rings remember, with the same logits again", async () => {
  for (const options of [NATIVE, PORTABLE]) {
    const session = await Session.open(PACKAGE, options);
    const tokens = golden.cases
      .find(({ token_ids }) => token_ids.length > 100)
      .token_ids.slice(0, 100);
    // Rings of 39 slots: 100 tokens go round more than twice.
    const cache = session.newCache(200, 8);
    const expected = await session.forward(tokens, cache);
    const assertEqual = (logits) =>
      logits.forEach((logit, i) =>
        assert.ok(Math.abs(logit - expected[i]) < TOLERANCE, `${logit} and ${expected[i]}`),
      );
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

test("a thread or a process that ends while the graph runs ends nothing else", () => {
  const program = fileURLToPath(new URL("interrupted.mjs", import.meta.url));
  const { status, signal, stdout, stderr } = spawnSync(process.execPath, [program], {
    encoding: "utf8",
  });
  assert.deepEqual([status, signal, stdout, stderr], [3, null, "alive\n", ""]);
});

test("the addon refuses memory that was given away, and a second call on a binding", async () => {
  const session = await Session.open(PACKAGE, NATIVE);
  const { binding } = session.newCache(8);
  const ids = BigInt64Array.of(1n);
  for (const name of ["input_ids", "past_lengths", "new_lengths", "logit_positions"])
    binding.bind(
      false,
      name,
      "int64",
      name === "input_ids" ? ids : BigInt64Array.of(name === "new_lengths" ? 1n : 0n),
      name === "input_ids" || name === "logit_positions" ? [1, 1] : [1],
    );
  const logits = new Float32Array(session.vocab);
  binding.bind(true, "logits", "float32", logits, [1, 1, session.vocab]);
  const running = binding.run();
  assert.throws(() => binding.run(), /one at a time/);
  assert.throws(
    () => binding.bind(true, "logits", "float32", logits, [1, 1, session.vocab]),
    /one at a time/,
  );
  await running;
  structuredClone(ids.buffer, { transfer: [ids.buffer] });
  assert.throws(() => binding.run(), /input_ids: found an array whose memory was transferred/);
  assert.throws(
    () => binding.bind(false, "x", "float8", logits, [1]),
    /element type: found float8/,
  );
  assert.throws(
    () => binding.bind(false, "input_ids", "float32", logits, [1 << 20, 1 << 20]),
    /input_ids/,
  );
});

test("a float16 cache that overflows is named, with what mends it", async () => {
  const session = await Session.open(PACKAGE, NATIVE);
  // The demo's cache holds float32: only the words are tried here.
  session.files.manifest.kv_dtype = "float16";
  const forward = session.run;
  session.run = async () => new Float32Array(session.vocab).fill(NaN);
  await refused(
    all(session.generate([1])),
    /logits: .*NaN.*cache is float16.*--kv-dtype float32/,
  ).catch(async (error) => {
    session.run = forward;
    throw error;
  });
});
