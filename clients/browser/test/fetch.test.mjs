import assert from "node:assert/strict";
import { createServer } from "node:http";
import { test } from "node:test";
import { fetchBytes, fetchJson, fileUrl } from "../public/fetch.mjs";

/**
 * Answer every request as a function does, and give the URL to another one.
 * @param {(response: import("node:http").ServerResponse) => void} answer
 * @param {(url: URL) => Promise<void>} use
 */
async function answering(answer, use) {
  const server = createServer((_, response) => answer(response));
  await new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(null)));
  const { port } = /** @type {import("node:net").AddressInfo} */ (server.address());
  try {
    await use(new URL(`http://127.0.0.1:${port}/package/file`));
  } finally {
    server.close();
    server.closeAllConnections();
  }
}

/**
 * Answer with a status and a text.
 * @type {(status: number, body: string) => (response: import("node:http").ServerResponse) => void}
 */
const saying = (status, body) => (response) => response.writeHead(status).end(body);

test("bytes arrive whole, with progress", () =>
  answering(saying(200, "x".repeat(300_000)), async (url) => {
    for (const size of [300_000, undefined]) {
      /** @type {[string, number, number][]} */
      const reports = [];
      const onProgress = (/** @type {[string, number, number]} */ ...report) =>
        reports.push(report);
      const bytes = await fetchBytes(url, { most: 300_000, size, onProgress });
      assert.equal(bytes.length, 300_000);
      assert.ok(bytes.every((byte) => byte === "x".charCodeAt(0)));
      assert.deepEqual(reports.at(-1), ["/package/file", 300_000, 300_000]);
    }
  }));

test("a file of another size than the manifest's is refused", () =>
  answering(saying(200, "12345"), async (url) => {
    const shorter = {
      name: "ClientError",
      message: /\/file: bytes: found more than 4, expected 4; export/,
    };
    const longer = { name: "ClientError", message: /\/file: bytes: found 5, expected 6; export/ };
    await assert.rejects(fetchBytes(url, { most: 100, size: 4 }), shorter);
    await assert.rejects(fetchBytes(url, { most: 100, size: 6 }), longer);
  }));

test("a body without an end is left as soon as it is larger than allowed", async () => {
  let sent = 0;
  let closed = () => {};
  const left = new Promise((resolve) => (closed = () => resolve(null)));
  const endless = (/** @type {import("node:http").ServerResponse} */ response) => {
    const piece = Buffer.alloc(65_536, "[");
    const write = () => {
      while (!response.destroyed && response.write(piece)) sent += piece.length;
    };
    response.on("drain", write).on("close", closed);
    write();
  };
  await answering(endless, async (url) => {
    const error = {
      name: "ClientError",
      message: "/package/file: bytes: found more than 100000, expected at most 100000",
    };
    await assert.rejects(fetchJson(url, { most: 100_000 }), error);
    await left; // the connection ends: nothing more is sent or kept
    assert.ok(sent < 50e6, `${sent} bytes were sent`);
  });
});

test("an answer that breaks off is one line", () =>
  answering(
    (response) =>
      response.writeHead(200, { "Content-Length": 10 }).write("12345", () => response.destroy()),
    (url) =>
      assert.rejects(fetchBytes(url, { most: 100 }), {
        name: "ClientError",
        message: /^\/package\/file: found /,
      }),
  ));

test("a missing file is named, or replaced where it may be missing", () =>
  answering(saying(404, ""), async (url) => {
    const error = {
      name: "ClientError",
      message: /\/package\/file: HTTP status: found 404, expected 200/,
    };
    await assert.rejects(fetchJson(url, { most: 100 }), error);
    assert.deepEqual(await fetchJson(url, { most: 100, instead: '{"a": 1}' }), { a: 1 });
  }));

test("what is no JSON is named", () =>
  answering(saying(200, "{"), (url) =>
    assert.rejects(fetchJson(url, { most: 100 }), {
      name: "ClientError",
      message: /^\/package\/file: found no JSON/,
    }),
  ));

test("a server that is not there is named", async () => {
  const url = new URL("http://127.0.0.1:9/package/file"); // of a service that nobody runs
  await assert.rejects(fetchBytes(url, { most: 100 }), {
    name: "ClientError",
    message: /^\/package\/file: found /,
  });
});

test("a name leads nowhere but below the folder", () => {
  const folder = new URL("http://localhost/package/");
  for (const name of [
    "a b",
    "a?b",
    "a#b",
    "data:text",
    "%2e%2e",
    "//x",
    "http:x",
    "é",
    "sub/model.safetensors",
    "a%2fb",
  ])
    assert.ok(fileUrl(name, folder).href.startsWith(folder.href), name);
  assert.equal(fileUrl("a?b", folder).search, "");
  assert.equal(fileUrl("sub/x", folder).pathname, "/package/sub/x");
});
