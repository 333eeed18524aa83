// Graphs of strangers: every tensor outside of the model is one tensor, or a part of one, of a
// weight file that is listed.
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { PackageFolder } from "gptoss-node";
import { external, message, number, varint, withinGraph } from "./onnx-bytes.mjs";
import { copied, PACKAGE, refusedAtOnce } from "./support.mjs";

const MODEL = readFileSync(join(PACKAGE, "model.onnx"));
const WEIGHTS = "model.safetensors";
const BYTES = readFileSync(join(PACKAGE, WEIGHTS));
const HEADER_END = 8 + Number(BYTES.readBigUInt64LE());
const header = JSON.parse(BYTES.subarray(8, HEADER_END));
const tensor = Object.entries(header).find(([name]) => name !== "__metadata__")[1];
const OFFSET = HEADER_END + tensor.data_offsets[0];
const LENGTH = tensor.data_offsets[1] - tensor.data_offsets[0];
// Which is right as an initializer of the graph alone.
const WHOLE = external(WEIGHTS, OFFSET, LENGTH);
const INSIDE = /expected data in the model itself/;

const weight = (...fields) => withinGraph(MODEL, message(5, ...fields));
const attribute = (...fields) => message(5, message(1, "value"), ...fields);
const node = (...fields) => message(1, message(2, "y"), message(4, "Constant"), ...fields);
const within = (...fields) => withinGraph(MODEL, node(attribute(...fields)));
const beside = (...fields) => Buffer.concat([MODEL, ...fields]);

for (const [name, bytes] of [
  ["a whole tensor of a listed file", WHOLE],
  ["a part of one, as q, k and v of OpenAI's layout are", external(WEIGHTS, OFFSET + 2, 2)],
])
  test(`these bytes are a model: ${name} is taken`, (t) => {
    const folder = copied(t);
    writeFileSync(join(folder, "model.onnx"), weight(bytes));
    assert.equal(PackageFolder.open(folder).manifest.graph, "model.onnx");
  });

const second = message(13, message(1, "location"), message(2, "/etc/passwd"));
for (const [name, bytes, reason] of [
  ["an absolute location", weight(external("/etc/passwd")), /'\/etc\/passwd', expected a weight/],
  ["a location above the folder", weight(external("../secret")), /'..\/secret', expected a weight/],
  ["a file that is not listed", weight(external("tokenizer.json")), /'tokenizer.json', expected a/],
  ["an address in memory", weight(external("*/_ORT_MEM_ADDR_/*", 4096)), /MEM_ADDR.*expected a/],
  ["more than a tensor", weight(external(WEIGHTS, OFFSET, LENGTH + 1)), /the bytes of one tensor/],
  ["another place", weight(external(WEIGHTS, OFFSET + 1, LENGTH)), /the bytes of one tensor/],
  ["the header of a file", weight(external(WEIGHTS, 8, 64)), /the bytes of one tensor/],
  ["a negative offset", weight(external(WEIGHTS, -1, 4)), /offset of its external data: found -1/],
  ["other digits", weight(external(WEIGHTS, "0x10", 4)), /offset of its external data: found 0x10/],
  ["many digits", weight(external(WEIGHTS, "9".repeat(5000), 4)), /offset of its external data/],
  [
    "no location",
    weight(message(8, "w"), number(14, 1)),
    /keys of its external data: found an emp/,
  ],
  ["a location of high bits", weight(message(8, "w"), number(14, 2 ** 32 + 1)), /keys of its ext/],
  ["a location given twice", weight(external(WEIGHTS), second), /'location' twice/],
  ["external data in an attribute", within(message(5, WHOLE)), INSIDE],
  ["external data in a list of an attribute", within(message(10, WHOLE)), INSIDE],
  ["external data in a subgraph", within(message(6, message(5, WHOLE))), INSIDE],
  ["external data in a list of subgraphs", within(message(11, message(5, WHOLE))), INSIDE],
  ["external data in a sparse attribute", within(message(22, message(1, WHOLE))), INSIDE],
  ["external data in a list of these", within(message(23, message(2, WHOLE))), INSIDE],
  ["a sparse initializer", withinGraph(MODEL, message(15, message(1, WHOLE))), INSIDE],
  ["a function", beside(message(25, message(7, attribute(message(5, WHOLE))))), INSIDE],
  ["defaults of a function", beside(message(25, message(11, message(5, WHOLE)))), INSIDE],
  ["initialization of training", beside(message(20, message(1, message(5, WHOLE)))), INSIDE],
  ["an algorithm of training", beside(message(20, message(2, message(5, WHOLE)))), INSIDE],
  ["two graphs", beside(message(7, message(2, "again"))), /graph: found 2, expected 1/],
  ["an empty file", Buffer.alloc(0), /graph: found 0, expected 1/],
  ["a number without end", Buffer.alloc(400_000, 0xff), /more than 10 bytes/],
  ["a number cut off", Buffer.of(0x3a, 0x80), /end of its message/],
  ["a length beyond the file", Buffer.of(0x3a, 0xff, 0xff, 0xff, 0xff, 0x0f), /length of a field/],
  ["a group", Buffer.of(0x3b), /wire type: found 3/],
  ["its own format", Buffer.from("\x3a\x06\x12\x04ORTM", "latin1"), /found ONNX Runtime's own/],
  ["millions of messages", message(7, Buffer.alloc(2_200_000, "1200", "hex")), /at most 1000000/],
  ["field 0", Buffer.of(0x02, 0x00), /field's number: found 0/],
  ["a field number of 64 bits", Buffer.concat([varint(2 ** 40 + 58), varint(0)]), /field's number/],
  ["nesting without end", message(7, nested(1000)), /nesting: found more/],
  ["another format", Buffer.from("this is no model at all"), /not a model of this project/],
])
  test(`a graph with ${name} is refused`, async (t) => {
    const folder = copied(t);
    writeFileSync(join(folder, "model.onnx"), bytes);
    await refusedAtOnce(folder, reason);
  });

/** Returns the fields of a graph whose attribute holds a graph, and so on. */
function nested(depth) {
  let graph = Buffer.alloc(0);
  for (let level = 0; level < depth; level += 1) graph = node(attribute(message(6, graph)));
  return graph;
}
