// Seeded mutations of a real package: each ends in success or in one line of ours, soon.
// MUTATIONS=n tries more.
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { GptossError, Session, Tokenizer, verify } from "gptoss-node";
import { copied, NATIVE, PORTABLE, rewrite, short } from "./support.mjs";

const ROUNDS = Number(process.env.MUTATIONS ?? 300);
const SEED = Number(process.env.MUTATION_SEED ?? 1);
const MOST_SECONDS = 10;
// What stands in documents of strangers: wrong types, numbers without sense, keys of prototypes,
// text that steers.
const VALUES = [
  null,
  true,
  false,
  0,
  -1,
  1,
  2,
  1.5,
  7,
  64,
  2 ** 31,
  2 ** 53,
  2 ** 63,
  1e308,
  -1e-320,
  "",
  "x",
  "0",
  "1.5",
  "\0",
  "/",
  "..",
  "../x",
  "/etc/passwd",
  "__proto__",
  "constructor",
  "toString",
  "\x1b[31m\n\u202e",
  "ÿ".repeat(300),
  [],
  {},
  [[]],
  [null],
  [-1],
  ["x"],
  { length: 3 },
  { __proto__x: 1 },
  { toString: 1, valueOf: 1 },
  [1, 2, 3],
  [2 ** 40],
  "copy",
  "link",
  "reference",
  "export",
  "float16",
  "bfloat16",
  "ort",
  "BPE",
  "ByteLevel",
  "Regex",
];
const KEYS = ["__proto__", "constructor", "hasOwnProperty", "then", "x"];

/** Returns a function of seeded random integers below its argument. */
function seeded(seed) {
  let state = seed;
  return (below) => {
    state = (state * 48271) % 2147483647;
    return Math.floor(((state - 1) / 2147483646) * below);
  };
}

/** Changes one value somewhere in a document; returns its path. */
function mutateDocument(document, random) {
  let holder = { document };
  let key = "document";
  const path = [];
  while (random(6) > 0 && typeof holder[key] === "object" && holder[key] !== null) {
    const keys = Object.keys(holder[key]);
    if (keys.length === 0) break;
    holder = holder[key];
    key = keys[random(keys.length)];
    path.push(key);
  }
  const change = random(8);
  if (change === 0) delete holder[key];
  else if (change === 1 && Array.isArray(holder[key])) holder[key].push(...holder[key].slice(0, 3));
  else if (change === 2 && Array.isArray(holder[key])) holder[key].length >>= 1;
  else if (change === 3 && typeof holder[key] === "object" && holder[key] !== null) {
    const added = KEYS[random(KEYS.length)];
    Object.defineProperty(holder[key], added, {
      value: VALUES[random(VALUES.length)],
      enumerable: true,
    });
  } else if (change === 4 && typeof holder[key] === "number") holder[key] += random(3) - 1;
  else holder[key] = VALUES[random(VALUES.length)];
  return path.join(".");
}

/** Changes, removes or repeats a few of the first `most` bytes. */
function mutateBytes(bytes, random, most) {
  let changed = Buffer.from(bytes);
  for (let count = 1 + random(3); count > 0; --count) {
    const place = random(Math.min(most, changed.length));
    const kind = random(5);
    if (kind === 0) changed = changed.subarray(0, place);
    else if (kind === 1)
      changed = Buffer.concat([
        changed.subarray(0, place),
        changed.subarray(place + 1 + random(9)),
      ]);
    else if (kind === 2)
      changed = Buffer.concat([
        changed.subarray(0, place),
        changed.subarray(Math.max(0, place - 9)),
      ]);
    else if (changed.length > 0)
      changed[place] = [0, 0xff, 0x80, 0x22, 0x5b, random(256)][random(6)];
  }
  return changed;
}

/** Uses what reads the file `name` of a package; `opened` is a session of it. */
async function use(folder, name, opened, options) {
  if (name.startsWith("golden")) return verify(opened);
  if (name.startsWith("tokenizer")) {
    const tokenizer = await Tokenizer.open(folder, { seconds: 5 });
    await tokenizer?.decode(await tokenizer.encode(short.text));
    return tokenizer?.close();
  }
  const session = await Session.open(folder, options);
  try {
    await session.forward(short.token_ids.slice(0, 3), session.newCache(8));
    for await (const token of session.generate(short.token_ids.slice(0, 2), { maxNewTokens: 2 }))
      assert.ok(token >= 0);
  } finally {
    await session.close();
  }
}

test(`${ROUNDS} mutated packages end in success or one line`, { timeout: 600_000 }, async (t) => {
  const folder = copied(t);
  const goldens = copied(t); // of a session that stays open, so its weights stay as they are
  rewrite(goldens, "golden/golden.json", (golden) => {
    golden.cases.length = 1;
    const [first] = golden.cases;
    first.positions = [0, 3];
    first.token_ids.length = 4;
    for (const key of ["positions", "top_indices", "top_logits", "sampled_logits", "logsumexp"])
      first[key].length = 2;
    first.greedy.length = 2;
  });
  const opened = await Session.open(goldens, NATIVE);
  // Nothing changed yet.
  for (const name of ["golden", "tokenizer", "manifest"]) await use(folder, name, opened, NATIVE);
  const random = seeded(SEED);
  const documents = [
    "manifest.json",
    "golden/golden.json",
    "generation_config.json",
    "tokenizer.json",
  ];
  const outcomes = { success: 0, refused: 0 };
  for (let round = 0; round < ROUNDS; ++round) {
    const isDocument = random(3) > 0;
    const names = isDocument
      ? documents
      : [...documents, "model.onnx", "model.safetensors", "tokenizer_config.json"];
    const name = names[isDocument ? Math.max(0, random(6) - 2) : random(names.length)];
    const path = join(name.startsWith("golden") ? goldens : folder, name);
    const original = readFileSync(path);
    let what = `round ${round}: ${name}`;
    if (isDocument) {
      const document = JSON.parse(original);
      what += `: ${mutateDocument(document, random)}`;
      writeFileSync(path, JSON.stringify(document) ?? "");
    } else {
      writeFileSync(
        path,
        mutateBytes(original, random, name === "model.safetensors" ? 10_000 : original.length),
      );
    }
    if (process.env.MUTATIONS) console.error(what);
    const begin = performance.now();
    try {
      await use(folder, name, opened, random(4) === 0 ? PORTABLE : NATIVE);
      outcomes.success += 1;
    } catch (error) {
      outcomes.refused += 1;
      if (process.env.MUTATIONS) console.error(`  ${error.message}`);
      assert.ok(error instanceof GptossError, `${what}: ${error.stack}`);
      assert.doesNotMatch(error.message, /[\x00-\x1f\x7f-\x9f\u202e]/, what);
    } finally {
      writeFileSync(path, original);
    }
    const seconds = (performance.now() - begin) / 1000;
    assert.ok(seconds < MOST_SECONDS, `${what}: ${seconds} s`);
  }
  assert.ok(
    outcomes.success > ROUNDS / 20 && outcomes.refused > ROUNDS / 3,
    JSON.stringify(outcomes),
  );
});
