import assert from "node:assert/strict";
import { test } from "node:test";
import { checkManifest } from "../public/manifest.mjs";
import { checkRuntime } from "../public/runtime.mjs";
import { manifestOf, manifestOfFormat1 } from "./small-package.mjs";

const QMOE = { target: "ort", ops: [{ domain: "com.microsoft", name: "QMoE" }] };
const OTHER = { target: "ort", ops: [null, { domain: "com.microsoft", name: "MoE" }] };

test("a new runtime is taken, also for packages that do not say what they need", () => {
  for (const [least, found] of [
    ["1.28", "1.28.0"],
    ["1.32", "1.32.0-dev.20261101"],
    ["1.32", "1.100.0"],
    ["1.32", "2.0.0"],
    ["1.9", "1.28.0"],
  ])
    checkRuntime(checkManifest(manifestOf({ onnxruntime: least, ...QMOE })), found);
  const unsaid = manifestOf();
  delete unsaid.onnxruntime;
  for (const manifest of [unsaid, manifestOfFormat1()]) {
    checkRuntime(checkManifest(manifest), "1.28.0");
    assert.throws(() => checkRuntime(checkManifest(manifest), "1.27.9"), {
      message: "this package needs ONNX Runtime 1.28, found 1.27.9: use that or a newer one",
    });
  }
});

test("an older runtime is refused by name, and the line says what to export instead", () => {
  for (const [ops, found, instead] of /** @type {const} */ ([
    [QMOE, "1.30.0", "--experts int8"],
    [QMOE, "1.4.0", "--experts int8"],
    [QMOE, "0.99.0", "--experts int8"],
    [QMOE, "none", "--experts int8"],
    [OTHER, "1.31.1", "--onnxruntime 1.28"],
  ]))
    assert.throws(
      () => checkRuntime(checkManifest(manifestOf({ onnxruntime: "1.32", ...ops })), found),
      {
        name: "ClientError",
        message:
          `this package needs ONNX Runtime 1.32, found ${found}: ` +
          `export it with --target ort ${instead}`,
      },
    );
});
