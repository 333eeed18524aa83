// Protocol buffers written by hand, to make models that no exporter makes. Field numbers are those
// of onnx.proto.

/** Returns a number as seven bits a byte, the lowest first. */
export function varint(value) {
  const bytes = [];
  for (let rest = value; ; rest = Math.floor(rest / 128)) {
    if (rest < 128) return Buffer.from([...bytes, rest]);
    bytes.push((rest % 128) + 128);
  }
}

/** Returns a field that holds a number. */
export function number(field, value) {
  return Buffer.concat([varint(field * 8), varint(value)]);
}

/** Returns a field that holds bytes: a text, or the fields of a message. */
export function message(field, ...parts) {
  const body = Buffer.concat(
    parts.map((part) => (typeof part === "string" ? Buffer.from(part) : part)),
  );
  return Buffer.concat([varint(field * 8 + 2), varint(body.length), body]);
}

/** Returns the fields of a float32 tensor [1] that lies in another file. */
export function external(location, offset = 0, length = 4) {
  const entry = (key, value) => message(13, message(1, key), message(2, String(value)));
  const place = [entry("location", location), entry("offset", offset), entry("length", length)];
  return Buffer.concat([number(1, 1), number(2, 1), message(8, "w"), number(14, 1), ...place]);
}

/** Returns a model file with more fields in its graph. */
export function withinGraph(model, ...parts) {
  const { begin, end, body } = graphOf(model);
  return Buffer.concat([model.subarray(0, begin), message(7, body, ...parts), model.subarray(end)]);
}

/** Returns where the graph of a model file lies, and its fields. */
function graphOf(model) {
  for (let begin = 0, place = 0; begin < model.length; begin = place) {
    const read = () => {
      let value = 0;
      for (let unit = 1; ; unit *= 128) {
        const byte = model[place++];
        value += (byte % 128) * unit;
        if (byte < 128) return value;
      }
    };
    const key = read();
    const size = read();
    const from = place;
    if (key % 8 === 2) place += size;
    if (key === 7 * 8 + 2) return { begin, end: place, body: model.subarray(from, place) };
  }
  throw new Error("no graph in this model");
}
