/** Served: package folders on disk that the tests of the server serve, gone when they end. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after } from "node:test";
import { GRAPH, manifestOf, WEIGHTS } from "./small-package.mjs";

export const above = mkdtempSync(join(tmpdir(), "gptoss-serve-"));
after(() => rmSync(above, { recursive: true }));
writeFileSync(join(above, "secret"), "secret"); // which nothing may serve
let made = 0;

/** Return a path beside the packages that nothing has yet. @param {string} name */
export const newPath = (name) => join(above, `${name}${made++}`);

/** Write a package folder that can be served. @param {object} [changes]  of the manifest */
export function packageOf(changes = {}) {
  const folder = newPath("package");
  mkdirSync(join(folder, "golden"), { recursive: true });
  writeFileSync(join(folder, "manifest.json"), JSON.stringify(manifestOf(changes)));
  writeFileSync(join(folder, "model.onnx"), GRAPH);
  writeFileSync(join(folder, "model.safetensors"), WEIGHTS.file);
  writeFileSync(join(folder, "tokenizer.json"), "{}");
  writeFileSync(join(folder, "golden", "golden.json"), "{}");
  writeFileSync(join(folder, "notes.txt"), "secret");
  return folder;
}

/**
 * Write a package of mode reference and its checkpoint.
 * @param {string} name
 * @param {Uint8Array} content
 */
export function referring(name, content) {
  const root = newPath("checkpoint");
  mkdirSync(join(root, "sub"), { recursive: true });
  writeFileSync(join(root, name), content);
  writeFileSync(join(root, "other.safetensors"), WEIGHTS.file);
  const files = [{ ...manifestOf().weights.files[0], name }];
  return { root, folder: packageOf({ weights: { mode: "reference", root, files } }) };
}
