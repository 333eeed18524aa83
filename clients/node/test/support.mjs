// Where the tests find their packages, and copies of them to break.
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

function fromEnvironment(name, what) {
  const value = process.env[name];
  if (!value) throw new Error(`${name}: not set, expected ${what}; clients/node/README.md says how to run the tests`);
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

/** Returns a copy of the demo package whose file `name` was changed by `edit(document)`; gone after the test. */
export function changed(test, name, edit) {
  const folder = join(mkdtempSync(join(tmpdir(), "gptoss-node-")), "package");
  test.after(() => rmSync(join(folder, ".."), { recursive: true }));
  cpSync(PACKAGE, folder, { recursive: true });
  const rewrite = (file, change) => {
    const document = JSON.parse(readFileSync(join(folder, file), "utf8"));
    change(document);
    writeFileSync(join(folder, file), JSON.stringify(document));
  };
  rewrite("manifest.json", ({ weights }) => (weights.mode = "copy")); // its time has changed
  rewrite(name, edit);
  return folder;
}

/** Returns the tokens of a generation. */
export async function all(generation) {
  const tokens = [];
  for await (const token of generation) tokens.push(token);
  return tokens;
}
