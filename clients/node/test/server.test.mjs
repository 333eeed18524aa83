// The example endpoint, over real connections: events, text, refusals, and a client that goes away.
import assert from "node:assert/strict";
import { once } from "node:events";
import { after, before, test } from "node:test";
import { Session } from "gptoss-node";
import { openTokenizer, serve } from "../examples/server.mjs";
import { NATIVE, PACKAGE, short } from "./support.mjs";

let session, server, url;

before(async () => {
  session = await Session.open(PACKAGE, NATIVE);
  server = serve(session, openTokenizer(PACKAGE)).listen(0, "127.0.0.1");
  await once(server, "listening");
  url = `http://127.0.0.1:${server.address().port}/generate`;
});
after(() => server.close());

function post(body, options = {}) {
  return fetch(url, { method: "POST", body: typeof body === "string" ? body : JSON.stringify(body), ...options });
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
    assert.deepEqual([response.status, response.headers.get("content-type")], [200, "text/event-stream"]);
    const found = await events(response);
    const done = found.pop();
    assert.deepEqual(found.map(({ token }) => token), short.greedy.slice(0, 20));
    assert.deepEqual(done, { type: "done", finish_reason: "length", tokens: short.greedy.slice(0, 20) });
    const text = openTokenizer(PACKAGE).decode(short.greedy.slice(0, 20), { skip_special_tokens: true });
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
  ]) {
    const response = await post(body);
    assert.equal(response.status, status, message);
    assert.match((await response.json()).error, message);
  }
  assert.equal((await fetch(url)).status, 405);
  assert.equal((await fetch(url.replace("generate", "nothing"))).status, 404);
});

test("generation stops when the client is gone, and others go on", async () => {
  const runs = [];
  const forward = session.forward;
  session.forward = function (tokens, cache, ...rest) {
    runs.push(cache);
    return forward.call(this, tokens, cache, ...rest);
  };
  const leaving = new AbortController();
  const sampling = { temperature: 2, seed: 1 }; // the greedy continuation might reach a stop token
  const response = await post({ token_ids: [1772], max_new_tokens: 1000, ...sampling }, { signal: leaving.signal });
  await response.body.getReader().read();
  leaving.abort();
  const other = await events(await post({ token_ids: short.token_ids, max_new_tokens: 30 }));
  assert.deepEqual(other.at(-1).tokens, short.greedy.slice(0, 30));
  let before;
  do {
    before = runs.length;
    await new Promise((resolve) => setTimeout(resolve, 300));
  } while (runs.length > before);
  session.forward = forward;
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
