// Sessions on the demo package: every way to run it proves itself, caches are independent, mistakes
// are named.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Session, verify } from "gptoss-node";
import {
  all,
  changed,
  golden,
  NATIVE,
  NO_ORT,
  ORT_PACKAGE,
  PACKAGE,
  PORTABLE,
  short,
} from "./support.mjs";

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
    chunked.forEach((logit, i) =>
      assert.ok(Math.abs(logit - whole[i]) < TOLERANCE, `${logit} and ${whole[i]}`),
    );
    await session.close();
  });

test("generations on different caches run at once and do not disturb each other", async () => {
  const session = await Session.open(PACKAGE, NATIVE);
  const generations = golden.cases.map(({ token_ids, greedy }) =>
    all(session.generate(token_ids, { maxNewTokens: greedy.length, sampling: { stopTokens: [] } })),
  );
  assert.deepEqual(
    await Promise.all(generations),
    golden.cases.map(({ greedy }) => greedy),
  );
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

test("a generation ends at a stop token, its length, the capacity, or with its loop", async () => {
  const session = await Session.open(PACKAGE, NATIVE);
  const stopping = session.generate(short.token_ids, {
    sampling: { stopTokens: [short.greedy[3]] },
  });
  assert.deepEqual(
    [await all(stopping), stopping.finishReason],
    [short.greedy.slice(0, 4), "stop"],
  );
  const counted = session.generate(short.token_ids, { maxNewTokens: 5 });
  assert.deepEqual(
    [await all(counted), counted.finishReason],
    [short.greedy.slice(0, 5), "length"],
  );
  const cache = session.newCache(short.token_ids.length + 2);
  const full = session.generate(short.token_ids, { cache });
  assert.deepEqual([await all(full), full.finishReason], [short.greedy.slice(0, 3), "length"]);
  const left = session.generate(short.token_ids);
  for await (const _ of left) if (left.tokens.length === 2) break;
  assert.deepEqual([left.tokens, left.finishReason], [short.greedy.slice(0, 2), null]);
});

test("the package's own stop tokens end a generation", async (t) => {
  const stop = short.greedy[5];
  const folder = changed(
    t,
    "generation_config.json",
    (config) => (config.eos_token_id = [2043, stop]),
  );
  const session = await Session.open(folder, NATIVE);
  const generation = session.generate(short.token_ids);
  assert.deepEqual(
    [await all(generation), generation.finishReason],
    [short.greedy.slice(0, 6), "stop"],
  );
});

test("activations bf16 reach the kernels", async () => {
  const exact = await Session.open(PACKAGE, NATIVE);
  const narrow = await Session.open(PACKAGE, { ...NATIVE, activations: "bf16" });
  const [one, other] = await Promise.all(
    [exact, narrow].map((s) => s.forward(short.token_ids, s.newCache(20))),
  );
  const largest = Math.max(...one.map((logit, i) => Math.abs(logit - other[i])));
  assert.ok(largest > 1e-4 && largest < 1, `${largest}`);
});
