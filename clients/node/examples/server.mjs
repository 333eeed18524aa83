// An HTTP endpoint that streams tokens as server-sent events:
//   node examples/server.mjs PACKAGE [PORT]
//   curl -N localhost:8080/generate -d '{"token_ids": [1428, 304, 258], "max_new_tokens": 20}'
// A body names `token_ids` or, where the package has a tokenizer, `text`; besides `max_new_tokens` and the settings of
// sampling. Each event is {"token", "text"}; the last, of type `done`, is {"finish_reason", "tokens"}.
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { Tokenizer } from "@huggingface/tokenizers";
import { GptossError, Session } from "gptoss-node";

const MOST_BYTES = 1 << 20; // of a request
const MOST_AT_ONCE = 4; // generations, as many as Node has threads to run them on
const SAMPLING = {
  temperature: "temperature", top_k: "topK", top_p: "topP", min_p: "minP",
  repetition_penalty: "repetitionPenalty", seed: "seed",
};

/** Refused before anything runs, with an HTTP status. */
class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Returns a server that is not listening yet; `tokenizer` may be undefined. */
export function serve(session, tokenizer) {
  let running = 0;
  return createServer(async (request, response) => {
    try {
      if (request.url !== "/generate") throw new Refusal(404, `found ${request.url}, expected /generate`);
      if (request.method !== "POST") throw new Refusal(405, `found ${request.method}, expected POST`);
      const generation = start(session, tokenizer, await readBody(request));
      if (running >= MOST_AT_ONCE) throw new Refusal(503, `found ${running} generations running: try again later`);
      running += 1;
      try {
        await stream(generation, tokenizer, response);
      } finally {
        running -= 1;
      }
    } catch (error) {
      fail(response, error);
    }
  });
}

async function readBody(request) {
  const chunks = [];
  let bytes = 0;
  for await (const chunk of request) {
    bytes += chunk.length;
    if (bytes > MOST_BYTES) throw new Refusal(413, `body: found more than ${MOST_BYTES} bytes`);
    chunks.push(chunk);
  }
  try {
    return JSON.parse(Buffer.concat(chunks).toString());
  } catch (error) {
    throw new Refusal(400, `body: not JSON (${error.message})`);
  }
}

/** Checks a request; generate() itself checks ids and settings, and throws a GptossError. */
function start(session, tokenizer, body) {
  const expect = (holds, message) => {
    if (!holds) throw new Refusal(400, message);
  };
  expect(typeof body === "object" && body !== null && !Array.isArray(body), "body: expected a JSON object");
  const known = ["token_ids", "text", "max_new_tokens", ...Object.keys(SAMPLING)];
  const unknown = Object.keys(body).find((key) => !known.includes(key));
  expect(unknown === undefined, `${unknown}: expected one of ${known.join(", ")}`);
  const { token_ids, text, max_new_tokens = 256 } = body;
  expect((token_ids === undefined) !== (text === undefined), "expected one of token_ids and text");
  expect(text === undefined || tokenizer !== undefined, "text: this package has no tokenizer; send token_ids");
  expect(text === undefined || typeof text === "string", "text: expected a string");
  expect(token_ids === undefined || Array.isArray(token_ids), "token_ids: expected a list of integers");
  const given = Object.entries(SAMPLING).filter(([key]) => body[key] !== undefined);
  for (const [key] of given)
    expect(typeof body[key] === "number", `${key}: found ${JSON.stringify(body[key])}, expected a number`);
  const sampling = Object.fromEntries(given.map(([key, name]) => [name, body[key]]));
  return session.generate(token_ids ?? tokenizer.encode(text).ids, { maxNewTokens: max_new_tokens, sampling });
}

/** Writes an event a token until the end, or until the client is gone: then nothing more is generated. */
async function stream(generation, tokenizer, response) {
  const headers = { "content-type": "text/event-stream", "cache-control": "no-store" };
  let told = 0; // characters
  for await (const token of generation) {
    if (response.destroyed) return;
    if (!response.headersSent) response.writeHead(200, headers);
    let text = null;
    if (tokenizer !== undefined) {
      const all = tokenizer.decode(generation.tokens, { skip_special_tokens: true });
      // Half a character waits for the token that completes it.
      text = all.endsWith("\ufffd") && generation.finishReason === null ? "" : all.slice(told);
      told += text.length;
    }
    response.write(`data: ${JSON.stringify({ token, text })}\n\n`);
  }
  const { finishReason: finish_reason, tokens } = generation;
  response.end(`event: done\ndata: ${JSON.stringify({ finish_reason, tokens })}\n\n`);
}

function fail(response, error) {
  const status = error instanceof Refusal ? error.status : error instanceof GptossError ? 400 : 500;
  if (status === 500) console.error(error);
  const message = JSON.stringify({ error: status === 500 ? "internal error" : error.message });
  if (response.headersSent) response.end(`event: error\ndata: ${message}\n\n`);
  else response.writeHead(status, { "content-type": "application/json", connection: "close" }).end(message);
}

/** Returns the tokenizer of a package folder, undefined where it has none. */
export function openTokenizer(folder) {
  const read = (name) => JSON.parse(readFileSync(join(folder, name), "utf8"));
  try {
    return new Tokenizer(read("tokenizer.json"), read("tokenizer_config.json"));
  } catch (error) {
    if (error.code === "ENOENT") return undefined;
    throw error;
  }
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const [folder, port = "8080"] = process.argv.slice(2);
  if (folder === undefined) throw new Error("usage: node examples/server.mjs PACKAGE [PORT]");
  const library = process.env.GPTOSS_OPS_LIBRARY;
  const session = await Session.open(folder, library === undefined ? {} : { library });
  const server = serve(session, openTokenizer(folder));
  server.listen(Number(port), "127.0.0.1", () =>
    console.error(`${session.kernels} kernels; POST http://127.0.0.1:${server.address().port}/generate`),
  );
}
