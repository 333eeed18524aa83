// Which ONNX Runtime a package needs, and what is said of an older one.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { Session } from "gptoss-node";
import { parseManifest } from "../dist/manifest.js";
import { checkRuntime, RUNTIME_VERSION } from "../dist/runtime.js";
import { changed, NATIVE, PACKAGE, refused } from "./support.mjs";

const WRITTEN = readFileSync(join(PACKAGE, "manifest.json"), "utf8");
const QMOE = { target: "ort", ops: [{ domain: "com.microsoft", name: "QMoE" }] };
const OTHER = { target: "ort", ops: [{ domain: "com.microsoft", name: "MoE" }] };

/** Says what a package that needs `least` says to an ONNX Runtime of version `found`. */
function check(least, found, changes = QMOE) {
  const document = { ...JSON.parse(WRITTEN), ...changes, onnxruntime: least };
  checkRuntime("folder", parseManifest(document, "w"), found);
}

test("a new runtime is taken, also for packages that do not say what they need", () => {
  for (const [least, found] of [
    ["1.28", "1.28.0"],
    ["1.32", "1.32.0-dev.20261101"],
    ["1.32", "1.100.0"],
    ["1.32", "2.0.0"],
    ["1.9", "1.28.0"],
    [undefined, "1.28.0"],
  ])
    check(least, found);
});

test("an older runtime is refused by name, and the line says what to export instead", () => {
  const line = "folder: this package needs ONNX Runtime 1.32, found";
  for (const [found, instead, changes] of [
    ["1.30.0", "--experts int8", QMOE],
    ["1.4.0", "--experts int8", QMOE],
    ["0.99.0", "--experts int8", QMOE],
    ["none", "--experts int8", QMOE],
    ["1.31.1", "--onnxruntime 1.28", OTHER],
  ])
    assert.throws(() => check("1.32", found, changes), {
      name: "Error",
      message: `${line} ${found}: export it with --target ort ${instead}`,
    });
  assert.throws(() => check(undefined, "1.27.9"), {
    message:
      "folder: this package needs ONNX Runtime 1.28, found 1.27.9: use that or a newer one",
  });
});

test("the version is that of onnxruntime-node, and a session asks for it", async (t) => {
  assert.match(RUNTIME_VERSION, /^1\.\d+\.\d+/);
  const folder = changed(t, "manifest.json", (manifest) => (manifest.onnxruntime = "1.999"));
  const message = new RegExp(`needs ONNX Runtime 1.999, found ${RUNTIME_VERSION}: `);
  await refused(Session.open(folder, NATIVE), message);
});
