// Packages of strangers: which files they can make this client read. All are refused in one line, and at once.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  appendFileSync, cpSync, mkdirSync, readFileSync, renameSync, rmSync, statSync, symlinkSync, truncateSync, utimesSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { PackageFolder, Session, Tokenizer, verify } from "gptoss-node";
import { external, message, number, varint, withinGraph } from "./onnx-bytes.mjs";
import { all, copied, NATIVE, PACKAGE, refused, rewrite, short } from "./support.mjs";

const SECONDS = 3; // in which even a machine under load refuses
const MODEL = readFileSync(join(PACKAGE, "model.onnx"));
const WEIGHTS = "model.safetensors";

/** Asserts that a folder is refused at once. */
async function refusedAtOnce(folder, reason) {
  const begin = performance.now();
  await refused(Session.open(folder, NATIVE), reason);
  assert.ok(performance.now() - begin < 1000 * SECONDS, `${performance.now() - begin} ms`);
}

const BYTES = readFileSync(join(PACKAGE, WEIGHTS));
const HEADER_END = 8 + Number(BYTES.readBigUInt64LE());
const header = JSON.parse(BYTES.subarray(8, HEADER_END));
const tensor = Object.entries(header).find(([name]) => name !== "__metadata__")[1];
const OFFSET = HEADER_END + tensor.data_offsets[0];
const LENGTH = tensor.data_offsets[1] - tensor.data_offsets[0];

test("the tests' own bytes are a model: a whole tensor of a listed file is taken", (t) => {
  const folder = copied(t);
  writeFileSync(join(folder, "model.onnx"), withinGraph(MODEL, message(5, external(WEIGHTS, OFFSET, LENGTH))));
  assert.equal(PackageFolder.open(folder).manifest.graph, "model.onnx");
});

const attribute = (...fields) => message(5, message(1, "value"), ...fields);
const node = (...fields) => message(1, message(2, "y"), message(4, "Constant"), ...fields);
const BODY = external(WEIGHTS, OFFSET, LENGTH); // which would be allowed as an initializer of the graph

for (const [name, bytes, reason] of [
  ["an absolute location", withinGraph(MODEL, message(5, external("/etc/passwd"))), /'\/etc\/passwd'/],
  ["a location above the folder", withinGraph(MODEL, message(5, external("../secret"))), /'..\/secret'/],
  ["a file that is not listed", withinGraph(MODEL, message(5, external("tokenizer.json"))), /'tokenizer.json'/],
  ["ONNX Runtime's name of its memory", withinGraph(MODEL, message(5, external("*/_ORT_MEM_ADDR_/*", 4096))), /ADDR/],
  ["part of a tensor", withinGraph(MODEL, message(5, external(WEIGHTS, OFFSET, LENGTH - 1))), /bytes of one tensor/],
  ["another place", withinGraph(MODEL, message(5, external(WEIGHTS, OFFSET + 1, LENGTH))), /bytes of one tensor/],
  ["the header", withinGraph(MODEL, message(5, external(WEIGHTS, 8, 64))), /bytes of one tensor/],
  ["a negative offset", withinGraph(MODEL, message(5, external(WEIGHTS, -1, 4))), /offset of its external data/],
  ["an offset in other digits", withinGraph(MODEL, message(5, external(WEIGHTS, "0x10", 4))), /offset of its external/],
  ["an offset of many digits", withinGraph(MODEL, message(5, external(WEIGHTS, "9".repeat(5000), 4))), /offset of its/],
  ["no location", withinGraph(MODEL, message(5, message(8, "w"), number(14, 1))), /keys of its external data/],
  ["a location of high bits", withinGraph(MODEL, message(5, message(8, "w"), number(14, 2 ** 32 + 1))), /keys of its/],
  ["a location given twice", withinGraph(MODEL, message(5, external(WEIGHTS), message(13, message(1, "location"), message(2, "/etc/passwd")))), /'location' twice/],
  ["external data in an attribute", withinGraph(MODEL, node(attribute(message(5, BODY)))), /data in the model itself/],
  ["in a list of an attribute", withinGraph(MODEL, node(attribute(message(10, BODY)))), /data in the model itself/],
  ["in a subgraph", withinGraph(MODEL, node(attribute(message(6, message(5, BODY))))), /data in the model itself/],
  ["in a list of subgraphs", withinGraph(MODEL, node(attribute(message(11, message(5, BODY))))), /data in the model itself/],
  ["in a sparse attribute", withinGraph(MODEL, node(attribute(message(22, message(1, BODY))))), /data in the model itself/],
  ["in a list of those", withinGraph(MODEL, node(attribute(message(23, message(2, BODY))))), /data in the model itself/],
  ["in a sparse initializer", withinGraph(MODEL, message(15, message(1, BODY))), /data in the model itself/],
  ["in a function", Buffer.concat([MODEL, message(25, message(7, attribute(message(5, BODY))))]), /data in the model/],
  ["in a function's defaults", Buffer.concat([MODEL, message(25, message(11, message(5, BODY)))]), /data in the model/],
  ["in training", Buffer.concat([MODEL, message(20, message(1, message(5, BODY)))]), /data in the model itself/],
  ["in training's algorithm", Buffer.concat([MODEL, message(20, message(2, message(5, BODY)))]), /data in the model/],
  ["two graphs", Buffer.concat([MODEL, message(7, message(2, "again"))]), /graph: found 2, expected 1/],
  ["an empty file", Buffer.alloc(0), /graph: found 0, expected 1/],
  ["a number without end", Buffer.alloc(400_000, 0xff), /more than 10 bytes/],
  ["a number cut off", Buffer.of(0x3a, 0x80), /end of its message/],
  ["a length beyond the file", Buffer.of(0x3a, 0xff, 0xff, 0xff, 0xff, 0x0f), /length of a field/],
  ["a group", Buffer.of(0x3b), /wire type/],
  ["field 0", Buffer.of(0x02, 0x00), /field's number/],
  ["a field number of 64 bits", Buffer.concat([varint(2 ** 40 + 58), varint(0)]), /field's number/],
  ["nesting without end", nested(1000), /nesting/],
  ["another format", Buffer.from("this is no model at all"), /not a model of this project/],
])
  test(`a graph with ${name} is refused`, async (t) => {
    const folder = copied(t);
    writeFileSync(join(folder, "model.onnx"), bytes);
    await refusedAtOnce(folder, reason);
  });

/** Returns a model whose attributes hold graphs that hold nodes with such attributes. */
function nested(depth) {
  let graph = Buffer.alloc(0);
  for (let level = 0; level < depth; ++level) graph = node(attribute(message(6, graph)));
  return message(7, graph);
}

for (const [name, edit, reason] of [
  ["graph: an absolute path", (m) => (m.graph = "/etc/passwd"), /graph: found \/etc\/passwd/],
  ["graph: a path above", (m) => (m.graph = "../model.onnx"), /graph: found/],
  ["graph: a folder", (m) => (m.graph = "golden"), /graph: found golden/],
  ["graph: a NUL", (m) => (m.graph = "model.onnx\0.onnx"), /graph: found/],
  ["graph: another format of ONNX Runtime's", (m) => (m.graph = "model.ort"), /ends in .onnx/],
  ["a root in mode copy", (m) => (m.weights.root = "/"), /root: found \/, expected null/],
  ["a root that is relative", (m) => Object.assign(m.weights, { mode: "reference", root: "." }), /absolute path/],
  ["mode reference without a root", (m) => (m.weights.mode = "reference"), /root/],
  ["a weight file that is absolute", (m) => (m.weights.files[0].name = "/etc/passwd"), /plain name/],
  ["a weight file above", (m) => (m.weights.files[0].name = "../x"), /plain name/],
  ["a weight file in a subfolder", (m) => (m.weights.files[0].name = "golden/golden.json"), /plain name/],
  ["a tokenizer file above", (m) => m.tokenizer_files.push("../x"), /tokenizer_files\[3\]: found ..\/x/],
  ["a tokenizer file that is missing", (m) => m.tokenizer_files.push("x"), /no such file/],
  ["another header", (m) => (m.weights.files[0].header_sha256 = "0".repeat(64)), /sha256 of its safetensors header/],
  ["weights that are no safetensors", (m) => listed(m, "tokenizer.json"), /length of the safetensors header/],
  ["a file below root / that is none", (m) => referred(m, "/", "etc/passwd"), /safetensors header/],
  ["a name above the root", (m) => referred(m, "/usr", "../etc/passwd"), /relative path/],
  ["own weights in mode reference", (m) => referred(m, PACKAGE, WEIGHTS, "export"), /origin in mode reference/],
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
  rewrite(folder, "manifest.json", ({ weights }) => Object.assign(weights, place).files[0].mtime_ns = 1e9);
  const session = await Session.open(folder, NATIVE);
  const logits = await session.forward(short.token_ids, session.newCache(20));
  assert.equal(logits.indexOf(Math.max(...logits)), short.greedy[0]);
});

for (const name of ["manifest.json", "model.onnx", WEIGHTS, "tokenizer.json", "generation_config.json"]) {
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
  ["control characters", '{"format": "\\u001b[2J\\n\\u202e"}', /found \\x1b\[2J \\u202e, expected gptoss-onnx/],
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
    await refused(session.forward(short.token_ids, session.newCache(40)), /changed while the package is open/);
    await refused(all(session.generate(short.token_ids)), /changed while the package is open/);
    await refused(all(session.generate([1], { cache })), /changed while the package is open/);
  }
});

test("a tokenizer's pattern that takes forever is given up, and the next call gets a new thread", async (t) => {
  const folder = copied(t);
  rewrite(folder, "tokenizer.json", (tokenizer) => {
    const pattern = { Regex: "(a+)+$" };
    tokenizer.pre_tokenizer = { type: "Split", pattern, behavior: "Isolated", invert: false };
  });
  const tokenizer = await Tokenizer.open(folder, { seconds: 1 });
  t.after(() => tokenizer.close());
  await refused(tokenizer.encode(`${"a".repeat(40)}b`), /no answer to encode in 1 seconds/);
  assert.equal(typeof (await tokenizer.decode([5])), "string");
});

test("a tokenizer that is none is refused", async (t) => {
  for (const text of ["[]", "{}", '{"model": null}', '{"model": {"type": "BPE"}}', "[".repeat(1e5), '{"model": {"type": 5}}']) {
    const folder = copied(t);
    writeFileSync(join(folder, "tokenizer.json"), text);
    await refused(Tokenizer.open(folder), /tokenizer/);
  }
});
