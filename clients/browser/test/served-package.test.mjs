// Packages that the server refuses to serve, in one line, before it listens.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  mkdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { serve } from "../serve.mjs";
import { above, newPath, packageOf, referring } from "./served.mjs";
import { manifestOf, safetensors, WEIGHTS } from "./small-package.mjs";

const other = safetensors(
  { first: { data_offsets: [0, 4] }, second: { data_offsets: [8, 12] } },
  12,
).file;
/** @type {[string, () => string, RegExp][]} */
const REFUSED = [
  ["no manifest", () => above, /: found no manifest.json, expected a package folder$/],
  ["no folder", () => join(above, "none"), /none: found no such folder, expected a package/],
  ["a file", () => join(above, "secret"), /found no manifest.json, expected a package folder/],
  [
    "a manifest that is no JSON",
    () => spoilt("manifest.json", (file) => writeFileSync(file, "{")),
    /found no JSON/,
  ],
  [
    "a manifest that is nested",
    () => spoilt("manifest.json", (file) => writeFileSync(file, "[".repeat(1e5))),
    /100 deep/,
  ],
  ["a manifest without an end", () => spoilt("manifest.json", endless), /bytes: found 1000000000/],
  [
    "a manifest that is a FIFO",
    () => spoilt("manifest.json", fifo),
    /manifest.json: found a FIFO or a device/,
  ],
  [
    "a manifest that leads out",
    () => spoilt("manifest.json", linked),
    /manifest.json: found a link to .*secret/,
  ],
  ["a manifest of another target", () => packageOf({ target: "cuda" }), /target: found cuda/],
  [
    "an absolute graph",
    () => packageOf({ graph: "/etc/passwd" }),
    /graph: found \/etc\/passwd, expected a plain/,
  ],
  [
    "a graph above",
    () => packageOf({ graph: "../secret" }),
    /graph: found ..\/secret, expected a plain/,
  ],
  [
    "no graph",
    () => spoilt("model.onnx", () => {}),
    /model.onnx: found no such file, expected one, as manifest.json/,
  ],
  [
    "a graph that leads out",
    () => spoilt("model.onnx", linked),
    /model.onnx: found a link to .*secret/,
  ],
  [
    "a graph that is a FIFO",
    () => spoilt("model.onnx", fifo),
    /model.onnx: found a FIFO or a device/,
  ],
  [
    "a graph that is a folder",
    () => spoilt("model.onnx", (file) => mkdirSync(file)),
    /model.onnx: found a folder/,
  ],
  [
    "a device",
    () => spoilt("tokenizer.json", (file) => symlinkSync("/dev/zero", file)),
    /found a link to \/dev\/zero/,
  ],
  [
    "golden vectors that lead out",
    () => spoilt("golden/golden.json", linked),
    /golden.json: found a link to/,
  ],
  ["a folder of golden vectors that leads out", outerGolden, /golden.json: found a link to/],
  [
    "weights that are cut off",
    () => spoilt("model.safetensors", (file) => writeFileSync(file, "short")),
    /bytes: found 5/,
  ],
  [
    "other weights",
    () => spoilt("model.safetensors", (file) => writeFileSync(file, other)),
    /sha256 of the header: found/,
  ],
  [
    "a root outside of mode reference",
    () => packageOf({ weights: { ...manifestOf().weights, root: "/" } }),
    /weights.root/,
  ],
  [
    "any file below the root",
    () => referring("x", Buffer.from("secret".repeat(40))).folder,
    /bytes: found 240/,
  ],
  [
    "another file of that size",
    () => referring("x", Buffer.alloc(WEIGHTS.file.length, "s")).folder,
    /safetensors header/,
  ],
  [
    "other tensors below the root",
    () => referring("x", other).folder,
    /sha256 of the header: found/,
  ],
  [
    "a link out of the root",
    linkedWeights,
    /x: found a link to .*, expected a file in .*checkpoint/,
  ],
  [
    "a root that is not there",
    () => spoiltRoot(),
    /found no such folder, expected a package or its checkpoint/,
  ],
];

/**
 * Return a package in which something else is in the place of a file.
 * @param {string} name
 * @param {(file: string) => void} put
 */
function spoilt(name, put) {
  const folder = packageOf();
  unlinkSync(join(folder, name));
  put(join(folder, name));
  return folder;
}

function endless(/** @type {string} */ file) {
  writeFileSync(file, "");
  truncateSync(file, 1e9);
}

function fifo(/** @type {string} */ file) {
  execFileSync("mkfifo", [file]);
}

function linked(/** @type {string} */ file) {
  symlinkSync(join(above, "secret"), file);
}

function outerGolden() {
  const folder = packageOf();
  const outside = newPath("golden");
  renameSync(join(folder, "golden"), outside);
  symlinkSync(outside, join(folder, "golden"));
  return folder;
}

function linkedWeights() {
  const { folder, root } = referring("x", WEIGHTS.file);
  renameSync(join(root, "x"), join(above, "weights"));
  symlinkSync(join(above, "weights"), join(root, "x"));
  return folder;
}

function spoiltRoot() {
  const { folder, root } = referring("x", WEIGHTS.file);
  rmSync(root, { recursive: true });
  return folder;
}

for (const [what, make, message] of REFUSED)
  test(`refused in one line: ${what}`, async () => {
    await assert.rejects(serve(make()), { name: "ClientError", message });
  });
