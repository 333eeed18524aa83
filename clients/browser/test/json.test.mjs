import assert from "node:assert/strict";
import { test } from "node:test";
import { parseJson } from "../public/json.mjs";

const parse = (/** @type {string | Uint8Array} */ text) =>
  parseJson(typeof text === "string" ? new TextEncoder().encode(text) : text, "file.json");

test("documents mean what JSON says", () => {
  for (const text of [
    '{"a": [1, -2.5e3, "x", true, null], "b": {"a": {}}}',
    '["\\"", "\\\\", "{,:", "a", "a"]',
    "7",
    '""',
  ])
    assert.deepEqual(parse(text), JSON.parse(text));
  assert.equal(parse('"\\ud83d\\ude42"'), "🙂");
  assert.equal(parse(`${"[".repeat(100)}${"]".repeat(100)}`).length, 1);
});

for (const [text, says] of /** @type {[string | Uint8Array, RegExp][]} */ ([
  ["", /found no JSON/],
  ["{", /found no JSON/],
  ['{"a": 1', /found no JSON/],
  ['"abc', /a string without an end/],
  ['"\\', /a string without an end/],
  ["[NaN]", /found no JSON/],
  [Uint8Array.of(0x22, 0xff, 0x22), /found no JSON/],
  ["[".repeat(100_000) + "]".repeat(100_000), /nested more than 100 deep/],
  ["[".repeat(10_000_000), /nested more than 100 deep/],
  ['{"a":'.repeat(200) + "1" + "}".repeat(200), /nested more than 100 deep/],
  ["9".repeat(5000), /a number of 5000 digits/],
  ["[1e400]", /the number 1e400 is beyond a double/],
  ['{"a": 1, "b": 2, "a": 3}', /a appears twice/],
  ['{"a": 1, "\\u0061": 3}', /a appears twice/],
  ['["\\ud800"]', /\\ud800 is no Unicode text/],
  ['{"\\u001b[2J": 1, "\\u001b[2J": 1}', /\\u001b\[2J appears twice/],
]))
  test(`refused in one line: ${String(text).slice(0, 30)}`, () => {
    const begin = performance.now();
    const oneLine = new RegExp(
      `^file\\.json: found no JSON .*${says.source}|^file\\.json: ${says.source}`,
    );
    assert.throws(() => parse(text), { name: "ClientError", message: oneLine });
    assert.ok(performance.now() - begin < 5000);
  });
