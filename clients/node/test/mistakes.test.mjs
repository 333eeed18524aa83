// Mistakes of callers: each is named in one line, before anything runs.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Session } from "gptoss-node";
import {
  changed,
  NATIVE,
  NO_ORT,
  ORT_PACKAGE,
  PACKAGE,
  PORTABLE,
  refused,
  short,
} from "./support.mjs";

test("mistakes in a call are named before anything runs", async () => {
  const session = await Session.open(PACKAGE, NATIVE);
  const cache = session.newCache(4);
  await refused(session.forward([], cache), /no token/);
  await refused(
    session.forward([2048], cache),
    /token 0: found 2048, expected an integer from 0 to 2047/,
  );
  await refused(session.forward([1.5], cache), /found 1.5/);
  await refused(session.forward([1, 2], cache, [1, 0]), /positions\[1\]: found 0/);
  await refused(
    session.forward([1, 2, 3, 4, 5], cache),
    /found 5, expected an integer from 1 to 4/,
  );
  assert.throws(() => session.generate([-1]), /found -1/);
  assert.throws(
    () => session.generate(new Array(1025).fill(1)),
    /found 1025, expected an integer from 1 to 1024/,
  );
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

test("wrong types are named, whatever they are", async () => {
  const session = await Session.open(PACKAGE, NATIVE);
  const cache = session.newCache(8);
  const odd = [
    null,
    undefined,
    5,
    "x",
    {},
    [undefined],
    [null],
    ["1"],
    [1n],
    [NaN],
    [[1]],
    new Array(3),
    () => 1,
    Symbol("x"),
  ];
  for (const value of odd) {
    await refused(session.forward(value, cache), /prompt/);
    await refused(
      Promise.resolve().then(() => session.generate(value)),
      /prompt/,
    );
    if (value !== undefined) await refused(session.forward([1], cache, value), /positions/);
    if (value !== cache) await refused(session.forward([1], value), /cache/);
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      if (value !== undefined) await refused(Session.open(PACKAGE, value), /options/);
      if (value !== undefined)
        await refused(
          Promise.resolve().then(() => session.generate([1], value)),
          /options/,
        );
    }
    if (typeof value !== "string") await refused(Session.open(value), /package/);
  }
  for (const [options, message] of [
    [{ maxNewTokens: "3" }, /max-new-tokens: found 3/],
    [{ maxTokens: 3 }, /options: its key: found maxTokens/],
    [{ sampling: { temperature: "1" } }, /temperature/],
    [
      { sampling: { stopTokens: [2048] } },
      /stop tokens: an id: found 2048, expected an integer from 0 to 2047/,
    ],
    [{ cache: {} }, /cache/],
  ])
    await refused(
      Promise.resolve().then(() => session.generate([1], options)),
      message,
    );
  for (const [capacity, chunk, message] of [
    [1025, 512, /cache capacity: found 1025, expected an integer from 1 to 1024/],
    [2 ** 62, 512, /cache capacity/],
    ["8", 512, /cache capacity/],
    [8, 0, /cache chunk/],
    [8, null, /cache chunk/],
  ])
    await refused(
      Promise.resolve().then(() => session.newCache(capacity, chunk)),
      message,
    );
  await refused(
    Session.open(PACKAGE, { ...NATIVE, threads: 100_000 }),
    /threads: found 100000, expected an integer from 0 to 1024/,
  );
  await refused(Session.open(PACKAGE, { library: 5 }), /library: found 5/);
  assert.equal(cache.length, 0);
});

test("a cache larger than the memory is named", async () => {
  const session = await Session.open(PACKAGE, NATIVE);
  // The demo's sequences are short: only the words are tried here.
  session.files.manifest.longest = 2 ** 52;
  assert.throws(() => session.newCache(2 ** 52), /^Error: cache: a buffer of \d+ bytes cannot be/);
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
  const refusedToOpen = (folder, options, message) =>
    refused(Session.open(folder, options), message);
  await refusedToOpen("nowhere", NATIVE, /nowhere: not a package/);
  await refusedToOpen(
    PACKAGE,
    { ...NATIVE, kernels: "fast" },
    /kernels: found fast, expected auto or native or portable/,
  );
  await refusedToOpen(PACKAGE, { ...NATIVE, threads: 0.5 }, /threads: found 0.5/);
  await refusedToOpen(
    PACKAGE,
    { kernels: "native", library: "missing.so" },
    /found no library missing.so/,
  );
  const noLibrary = { kernels: "native", library: `${PACKAGE}/model.onnx` };
  await refusedToOpen(PACKAGE, noLibrary, /expected this project's libgptoss_ops/);
  await refusedToOpen(
    PACKAGE,
    { ...PORTABLE, activations: "bf16" },
    /activations bf16: needs the native kernels/,
  );
  for (const [key, value, message] of [
    ["format_version", 3, /format_version: found 3, expected 1 or 2/],
    ["target", "npu", /target: found npu, expected portable or ort/],
    ["graph", "other.onnx", /other.onnx: no such file/],
  ])
    await refusedToOpen(
      changed(t, "manifest.json", (manifest) => (manifest[key] = value)),
      NATIVE,
      message,
    );
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

test("target ort refuses what it cannot do", { skip: NO_ORT }, async () => {
  for (const options of [{ kernels: "native" }, { kernels: "portable" }, { activations: "bf16" }])
    await assert.rejects(Session.open(ORT_PACKAGE, options), /for target ort: found/);
});
