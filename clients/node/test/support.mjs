// Where the tests find their packages, and copies of them to break.
import assert from "node:assert/strict";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { GptossError, Session } from "gptoss-node";

const SECONDS = 5; // in which even a machine under load refuses

function fromEnvironment(name, what) {
  const value = process.env[name];
  if (!value)
    throw new Error(
      `${name}: not set, expected ${what}; clients/node/README.md says how to run the tests`,
    );
  return value;
}

export const PACKAGE = fromEnvironment("GPTOSS_PACKAGE", "the demo checkpoint exported");
export const ORT_PACKAGE = process.env.GPTOSS_ORT_PACKAGE;
export const LIBRARY = fromEnvironment("GPTOSS_OPS_LIBRARY", "the path of libgptoss_ops.so");
export const NO_ORT = ORT_PACKAGE ? false : "GPTOSS_ORT_PACKAGE names no package of target ort";
export const NATIVE = { kernels: "native", library: LIBRARY, threads: 1 };
export const PORTABLE = { kernels: "portable", threads: 1 };

export const golden = JSON.parse(readFileSync(join(PACKAGE, "golden/golden.json"), "utf8"));
export const short = golden.cases.find(({ name }) => name === "short");

/** Returns a copy of the demo package, gone after the test; its manifest says that it is one. */
export function copied(test) {
  const folder = join(mkdtempSync(join(tmpdir(), "gptoss-node-")), "package");
  test.after(() => rmSync(join(folder, ".."), { recursive: true }));
  cpSync(PACKAGE, folder, { recursive: true });
  // Its time has changed.
  rewrite(folder, "manifest.json", ({ weights }) => (weights.mode = "copy"));
  return folder;
}

/** Changes a document of a package. */
export function rewrite(folder, name, edit) {
  const document = JSON.parse(readFileSync(join(folder, name), "utf8"));
  edit(document);
  writeFileSync(join(folder, name), JSON.stringify(document));
}

/**
 * Returns a copy of the demo package whose file `name` was changed by `edit(document)`; gone after
 * the test.
 */
export function changed(test, name, edit) {
  const folder = copied(test);
  rewrite(folder, name, edit);
  return folder;
}

/** Asserts that a promise is refused with an error of ours, in one printable line. */
export async function refused(promise, message) {
  await assert.rejects(promise, (error) => {
    assert.ok(error instanceof GptossError, error.stack);
    assert.match(error.message, message);
    assert.doesNotMatch(error.message, /[\x00-\x1f\x7f-\x9f]/);
    return true;
  });
}

/** Asserts that a folder is refused at once. */
export async function refusedAtOnce(folder, reason) {
  const begin = performance.now();
  await refused(Session.open(folder, NATIVE), reason);
  assert.ok(performance.now() - begin < 1000 * SECONDS, `${performance.now() - begin} ms`);
}

/** Returns the tokens of a generation. */
export async function all(generation) {
  const tokens = [];
  for await (const token of generation) tokens.push(token);
  return tokens;
}
