// The example endpoint, over real connections: events, text, refusals, and a client that goes away.
import assert from "node:assert/strict";
import { once } from "node:events";
import { spawnSync } from "node:child_process";
import { connect } from "node:net";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { Session } from "gptoss-node";
import { serve, Tokenizers } from "../examples/server.mjs";
import { NATIVE, PACKAGE, short } from "./support.mjs";

const SERVER = fileURLToPath(new URL("../examples/server.mjs", import.meta.url));
const STALL_SECONDS = 1;

let session, tokenizers, server, url;

before(async () => {
  session = await Session.open(PACKAGE, NATIVE);
  tokenizers = await Tokenizers.open(PACKAGE);
  server = serve(session, tokenizers, { stallSeconds: STALL_SECONDS }).listen(0, "127.0.0.1");
  await once(server, "listening");
  url = `http://127.0.0.1:${server.address().port}/generate`;
});
after(async () => {
  server.close();
  server.closeAllConnections();
  await tokenizers.close();
});

function post(body, options = {}) {
  return fetch(url, {
    method: "POST",
    body: typeof body === "string" ? body : JSON.stringify(body),
    ...options,
  });
}

/** Returns the events of a finished stream. */
async function events(response) {
  const blocks = (await response.text()).split("\n\n").filter((block) => block !== "");
  return blocks.map((block) => {
    const fields = Object.fromEntries(block.split("\n").map((line) => line.split(/: (.*)/s)));
    return { type: fields.event ?? "message", ...JSON.parse(fields.data) };
  });
}

test("token ids and text stream the same tokens, and text arrives in pieces", async () => {
  for (const prompt of [{ token_ids: short.token_ids }, { text: short.text }]) {
    const response = await post({ ...prompt, max_new_tokens: 20 });
    assert.deepEqual(
      [response.status, response.headers.get("content-type")],
      [200, "text/event-stream"],
    );
    const found = await events(response);
    const done = found.pop();
    assert.deepEqual(
      found.map(({ token }) => token),
      short.greedy.slice(0, 20),
    );
    assert.deepEqual(done, {
      type: "done",
      finish_reason: "length",
      tokens: short.greedy.slice(0, 20),
    });
    const text = await tokenizers.decoder.decode(short.greedy.slice(0, 20));
    assert.equal(found.map((event) => event.text).join(""), text);
  }
});

test("bad input gets one clear error", async () => {
  for (const [body, status, message] of [
    ["{", 400, /^body: not JSON/],
    [[1], 400, /expected a JSON object/],
    [{}, 400, /expected one of token_ids and text/],
    [{ token_ids: "1,2" }, 400, /token_ids: expected a list/],
    [{ token_ids: [1, 9999] }, 400, /token 1: found 9999/],
    [{ token_ids: [] }, 400, /no token/],
    [{ token_ids: [1], temperature: "hot" }, 400, /temperature: found "hot", expected a number/],
    [{ token_ids: [1], max_new_tokens: 0 }, 400, /max-new-tokens: found 0/],
    [{ token_ids: [1], beams: 4 }, 400, /^beams: expected one of/],
    [{ text: "x".repeat(1 << 20) }, 413, /more than/],
    [
      { text: "x".repeat(1 << 19) },
      400,
      /^text: found 524288 bytes, expected at most the \d+ that the model/,
    ],
  ]) {
    const response = await post(body);
    assert.equal(response.status, status, message);
    assert.match((await response.json()).error, message);
  }
  assert.equal((await fetch(url)).status, 405);
  assert.equal((await fetch(url.replace("generate", "nothing"))).status, 404);
});

/** Returns a list that grows with every call of the graph during the test. */
function countRuns(test) {
  const runs = [];
  const run = session.run;
  session.run = function (tokens, cache, ...rest) {
    runs.push(cache);
    return run.call(this, tokens, cache, ...rest);
  };
  test.after(() => (session.run = run));
  return runs;
}

test("generation stops when the client is gone, and others go on", async (t) => {
  const runs = countRuns(t);
  const leaving = new AbortController();
  const sampling = { temperature: 2, seed: 1 }; // the greedy continuation might reach a stop token
  const response = await post(
    { token_ids: [1772], max_new_tokens: 1000, ...sampling },
    { signal: leaving.signal },
  );
  await response.body.getReader().read();
  leaving.abort();
  const other = await events(await post({ token_ids: short.token_ids, max_new_tokens: 30 }));
  assert.deepEqual(other.at(-1).tokens, short.greedy.slice(0, 30));
  let before;
  do {
    before = runs.length;
    await new Promise((resolve) => setTimeout(resolve, 300));
  } while (runs.length > before);
  assert.ok(runs.length > 31 && runs.length < 800, `${runs.length} runs`);
});

test("more than four at once are asked to come back", async () => {
  const request = { token_ids: [1772], max_new_tokens: 50 };
  const responses = await Promise.all(Array.from({ length: 8 }, () => post(request)));
  const statuses = responses.map(({ status }) => status).sort();
  assert.ok(statuses.filter((status) => status === 200).length >= 4, `${statuses}`);
  assert.ok(statuses.includes(503), `${statuses}`);
  await Promise.all(responses.map((response) => response.text()));
});

test("a long prompt is encoded off the main thread", async () => {
  const { length } = await tokenizers.encoder.encode("x");
  assert.equal(length, 1);
  let late = 0;
  let last = performance.now();
  const timer = setInterval(() => {
    late = Math.max(late, performance.now() - last);
    last = performance.now();
  }, 5);
  const begin = performance.now();
  const { length: many } = await tokenizers.encoder.encode(
    "It was a bright morning, and so on. ".repeat(20_000),
  );
  const whole = performance.now() - begin;
  clearInterval(timer);
  assert.ok(many > 100_000, `${many} tokens`);
  assert.ok(late < whole / 3, `timers waited ${late} ms of ${whole}`);
});

test("readers that stall are let go, and their places with them", async (t) => {
  const { port } = server.address();
  const runs = countRuns(t);
  // Each event is made large, so that a few of them fill what the kernel keeps for a connection.
  const decode = tokenizers.decoder.decode;
  tokenizers.decoder.decode = async (ids) => "x".repeat(ids.length << 18);
  const body = JSON.stringify({ token_ids: [1772], max_new_tokens: 900, temperature: 2, seed: 1 });
  const head = `POST /generate HTTP/1.1\r\nhost: x\r\ncontent-length: ${body.length}\r\n\r\n`;
  const sockets = Array.from({ length: 4 }, () =>
    connect(port, "127.0.0.1")
      .on("error", () => undefined)
      .pause(),
  );
  try {
    for (const socket of sockets) socket.write(head + body);
    const status = async () => (await post({ token_ids: [1], max_new_tokens: 1 })).status;
    const until = async (expected, seconds) => {
      for (const end = Date.now() + 1000 * seconds; (await status()) !== expected;) {
        assert.ok(Date.now() < end, `no answer ${expected} in ${seconds} s`);
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
    };
    await until(503, 10);
    await until(200, 10 * STALL_SECONDS);
    assert.ok(runs.length < 4 * 200, `${runs.length} runs for clients that read nothing`);
  } finally {
    tokenizers.decoder.decode = decode;
    for (const socket of sockets) socket.destroy();
  }
});

test("--help prints the usage, and mistakes one line", () => {
  const run = (...args) => spawnSync(process.execPath, [SERVER, ...args], { encoding: "utf8" });
  const help = run("--help");
  assert.deepEqual([help.status, help.stderr], [0, ""]);
  assert.match(help.stdout, /^usage: node examples\/server.mjs PACKAGE \[PORT\]\n/);
  for (const [args, message] of [
    [[], /^server: usage: /],
    [["nowhere"], /^server: .*nowhere: not a package/],
    [[PACKAGE, "eighty"], /^server: PORT: found eighty/],
    [[PACKAGE, "70000"], /^server: PORT: found 70000/],
  ]) {
    const { status, stdout, stderr } = run(...args);
    assert.deepEqual([status, stdout, stderr.trimEnd().split("\n").length], [2, "", 1], stderr);
    assert.match(stderr, message);
  }
});
