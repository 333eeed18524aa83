import { createRequire } from "node:module";
import { GptossError } from "./errors.js";
import type { Manifest } from "./manifest.js";

// What has another form for older ones, if it is of target ort.
const NEW_VERSION: [number, number] = [1, 32];

/** The version of ONNX Runtime that onnxruntime-node brings, and that the addon runs in too. */
export const RUNTIME_VERSION = (
  createRequire(import.meta.url)("onnxruntime-node/package.json") as { version: string }
).version;

/** Refuses a package whose graph needs a newer ONNX Runtime than `found`; `folder` names it. */
export function checkRuntime(folder: string, manifest: Manifest, found: string): void {
  const { onnxruntime: least, target, ops } = manifest;
  if (compare(numbers(found), numbers(least)) >= 0) return;
  const older = ops.some(({ name }) => name === "QMoE")
    ? "--experts int8"
    : "--onnxruntime 1.28";
  const cure =
    target === "ort" && compare(numbers(least), NEW_VERSION) >= 0
      ? `export it with --target ort ${older}`
      : "use that or a newer one";
  throw new GptossError(
    `${folder}: this package needs ONNX Runtime ${least}, found ${found}: ${cure}`,
  );
}

/** Returns major and minor, which are compared as numbers: 1.9 is older than 1.28. */
function numbers(version: string): [number, number] {
  const [major = NaN, minor = NaN] = version.split(".").map((part) => Number.parseInt(part, 10));
  return [major, minor];
}

function compare(a: [number, number], b: [number, number]): number {
  return a[0] === b[0] ? a[1] - b[1] : a[0] - b[0];
}
