// Packages of strangers: which files they can make this client read. All are refused in one line,
// and at once.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  appendFileSync,
  cpSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { PackageFolder, Session, verify } from "gptoss-node";
import {
  all,
  copied,
  NATIVE,
  PACKAGE,
  refused,
  refusedAtOnce,
  rewrite,
  short,
} from "./support.mjs";

const WEIGHTS = "model.safetensors";

for (const [name, edit, reason] of [
  ["graph: an absolute path", (m) => (m.graph = "/etc/passwd"), /graph: found \/etc\/passwd/],
  ["graph: a path above", (m) => (m.graph = "../model.onnx"), /graph: found/],
  ["graph: a folder", (m) => (m.graph = "golden"), /graph: found golden/],
  ["graph: a NUL", (m) => (m.graph = "model.onnx\0.onnx"), /graph: found/],
  ["graph: another format of ONNX Runtime's", (m) => (m.graph = "model.ort"), /ends in .onnx/],
  ["a root in mode copy", (m) => (m.weights.root = "/"), /root: found \/, expected null/],
  [
    "a root that is relative",
    (m) => Object.assign(m.weights, { mode: "reference", root: "." }),
    /absolute path/,
  ],
  ["mode reference without a root", (m) => (m.weights.mode = "reference"), /weights: root/],
  [
    "a weight file that is absolute",
    (m) => (m.weights.files[0].name = "/etc/passwd"),
    /plain name/,
  ],
  ["a weight file above", (m) => (m.weights.files[0].name = "../x"), /plain name/],
  [
    "a weight file in a subfolder",
    (m) => (m.weights.files[0].name = "golden/golden.json"),
    /plain name/,
  ],
  [
    "a tokenizer file above",
    (m) => m.tokenizer_files.push("../x"),
    /tokenizer_files\[3\]: found ..\/x/,
  ],
  ["a tokenizer file that is missing", (m) => m.tokenizer_files.push("x"), /no such file/],
  [
    "another header",
    (m) => (m.weights.files[0].header_sha256 = "0".repeat(64)),
    /sha256 of its safetensors header/,
  ],
  [
    "weights that are no safetensors",
    (m) => listed(m, "tokenizer.json"),
    /length of the safetensors header/,
  ],
  ["a file below root / that is none", (m) => referred(m, "/", "etc/passwd"), /safetensors header/],
  ["a name above the root", (m) => referred(m, "/usr", "../etc/passwd"), /relative path/],
  [
    "own weights in mode reference",
    (m) => referred(m, PACKAGE, WEIGHTS, "export"),
    /origin in mode reference/,
  ],
])
  test(`a manifest with ${name} is refused`, async (t) => {
    const folder = copied(t);
    rewrite(folder, "manifest.json", edit);
    await refusedAtOnce(folder, reason);
  });

/** Makes a manifest list a file as it is. */
function listed({ weights }, name) {
  Object.assign(weights.files[0], { name, size: readFileSync(join(PACKAGE, name)).length });
}

/** Makes a manifest refer to a file below a root. */
function referred({ weights }, root, name, origin = "checkpoint") {
  Object.assign(weights, { mode: "reference", root });
  const { size, mtimeNs } = statSync(join(root, name), { bigint: true });
  Object.assign(weights.files[0], { name, origin, size: Number(size), mtime_ns: Number(mtimeNs) });
}

test("mode reference reads the checkpoint where it lies", async (t) => {
  const folder = copied(t);
  const checkpoint = join(dirname(folder), "checkpoint");
  mkdirSync(checkpoint);
  renameSync(join(folder, WEIGHTS), join(checkpoint, WEIGHTS));
  utimesSync(join(checkpoint, WEIGHTS), 1, 1);
  const place = { mode: "reference", root: checkpoint };
  rewrite(
    folder,
    "manifest.json",
    ({ weights }) => (Object.assign(weights, place).files[0].mtime_ns = 1e9),
  );
  const session = await Session.open(folder, NATIVE);
  const logits = await session.forward(short.token_ids, session.newCache(20));
  assert.equal(logits.indexOf(Math.max(...logits)), short.greedy[0]);
});

for (const name of [
  "manifest.json",
  "model.onnx",
  WEIGHTS,
  "tokenizer.json",
  "generation_config.json",
]) {
  test(`${name}: a link out of the folder is refused`, async (t) => {
    const folder = copied(t);
    const outside = join(dirname(folder), "outside");
    renameSync(join(folder, name), outside);
    symlinkSync(outside, join(folder, name));
    await refusedAtOnce(folder, /a link to/);
  });

  test(`${name}: a FIFO, a device and a folder are refused`, async (t) => {
    const folder = copied(t);
    const path = join(folder, name);
    rmSync(path);
    execFileSync("mkfifo", [path]);
    await refusedAtOnce(folder, /found a FIFO, expected a regular file/);
    rmSync(path);
    mkdirSync(path);
    await refusedAtOnce(folder, /found a folder, expected a regular file/);
    rmSync(path, { recursive: true });
    symlinkSync("/dev/zero", path);
    await refusedAtOnce(folder, /a link to \/dev\/zero/);
  });
}

test("golden vectors are read from within the folder", async (t) => {
  const folder = copied(t);
  const session = await Session.open(folder, NATIVE);
  const outside = join(dirname(folder), "golden");
  renameSync(join(folder, "golden"), outside);
  symlinkSync(outside, join(folder, "golden"));
  await refused(verify(session), /a link to/);
  rmSync(join(folder, "golden"));
  mkdirSync(join(folder, "golden"));
  execFileSync("mkfifo", [join(folder, "golden/golden.json")]);
  await refused(verify(session), /a FIFO/);
});

test("a link within the folder is none of these", async (t) => {
  const folder = copied(t);
  renameSync(join(folder, "model.onnx"), join(folder, "other.onnx"));
  symlinkSync("other.onnx", join(folder, "model.onnx"));
  assert.equal(PackageFolder.open(folder).graph, join(folder, "model.onnx"));
});

for (const [name, text, reason] of [
  ["100,000 lists inside each other", `${"[".repeat(100_000)}${"]".repeat(100_000)}`, /nesting/],
  ["a number of 5,000 digits", `{"format": ${"9".repeat(5000)}}`, /5000 digits/],
  ["a number beyond a double", '{"format": 1e999}', /range of a double/],
  ["a key that appears twice", '{"format": 1, "for\\u006dat": 2}', /'format' twice/],
  ["half of a surrogate pair", '{"format": "\\ud800"}', /surrogate/],
  ["bytes that are no UTF-8", Buffer.of(0x22, 0xff, 0x22), /not JSON/],
  ["NaN", '{"format": NaN}', /not JSON/],
  ["an open string", '{"format": "', /closing quote/],
  ["a list", "[]", /a list of 0, expected an object/],
  ["null", "null", /expected an object/],
  ["more than its limit", " ".repeat(16_000_001), /more than 16000000 bytes/],
  [
    "control characters",
    '{"format": "\\u001b[2J\\n\\u202e"}',
    /found \\x1b\[2J \\u202e, expected gptoss-onnx/,
  ],
])
  test(`a manifest with ${name} is refused`, async (t) => {
    const folder = copied(t);
    writeFileSync(join(folder, "manifest.json"), text);
    await refusedAtOnce(folder, reason);
  });

test("weights cut off or rewritten while the package is open are refused, not run", async (t) => {
  for (const change of [
    (path) => truncateSync(path, 100_000),
    (path) => writeFileSync(path, readFileSync(path)),
    (path) => appendFileSync(path, "x"),
    (path) => rmSync(path),
    (path) => {
      cpSync(path, `${path}.new`, { preserveTimestamps: true });
      renameSync(`${path}.new`, path);
    },
  ]) {
    const folder = copied(t);
    const session = await Session.open(folder, NATIVE);
    const cache = session.newCache(40);
    await session.forward(short.token_ids, cache);
    change(join(folder, WEIGHTS));
    await refused(
      session.forward(short.token_ids, session.newCache(40)),
      /changed while the package is open/,
    );
    await refused(all(session.generate(short.token_ids)), /changed while the package is open/);
    await refused(all(session.generate([1], { cache })), /changed while the package is open/);
  }
});
