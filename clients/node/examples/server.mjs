// An HTTP endpoint that streams tokens as server-sent events:
//   node examples/server.mjs PACKAGE [PORT]
//   curl -N localhost:8080/generate -d '{"token_ids": [1428, 304, 258], "max_new_tokens": 20}'
// A body names `token_ids` or, where the package has a tokenizer, `text`; besides `max_new_tokens`
// and the settings of sampling. Each event is {"token", "text"}; the last, of type `done`, is
// {"finish_reason", "tokens"}.
import { once } from "node:events";
import { createServer } from "node:http";
import { pathToFileURL } from "node:url";
import { GptossError, Session, TextStream, Tokenizer } from "gptoss-node";

const USAGE = `usage: node examples/server.mjs PACKAGE [PORT]
serves POST http://127.0.0.1:PORT/generate, PORT 8080 if it is left out, 0 for any that is free
GPTOSS_OPS_LIBRARY names libgptoss_ops.so`;

const MOST_BYTES = 1 << 20; // of a request
const MOST_AT_ONCE = 4; // generations, as many as Node has threads to run them on
const STALL_SECONDS = 30; // that a client may take to read what it was sent
const BODY_SECONDS = 30; // that a client may take to send its request
const SAMPLING = {
  temperature: "temperature",
  top_k: "topK",
  top_p: "topP",
  min_p: "minP",
  repetition_penalty: "repetitionPenalty",
  seed: "seed",
};

/** Refused before anything runs, with an HTTP status. */
class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The client left, or reads nothing: there is no one to answer. */
class Gone extends Error {}

/**
 * What turns text into tokens and back, each in its own thread: a long prompt holds up no other
 * stream.
 */
export class Tokenizers {
  constructor(encoder, decoder) {
    this.encoder = encoder;
    this.decoder = decoder;
  }

  /** Returns the tokenizers of a package folder, undefined where it has none. */
  static async open(folder) {
    const encoder = await Tokenizer.open(folder);
    return encoder && new Tokenizers(encoder, await Tokenizer.open(folder));
  }

  async close() {
    await this.encoder.close();
    await this.decoder.close();
  }
}

/** Returns a server that is not listening yet; `tokenizers` may be undefined. */
export function serve(session, tokenizers, { stallSeconds = STALL_SECONDS } = {}) {
  let running = 0;
  const options = { requestTimeout: 1000 * BODY_SECONDS };
  return createServer(options, async (request, response) => {
    try {
      if (request.url !== "/generate")
        throw new Refusal(404, `found ${request.url}, expected /generate`);
      if (request.method !== "POST")
        throw new Refusal(405, `found ${request.method}, expected POST`);
      const body = await readBody(request);
      if (running >= MOST_AT_ONCE)
        throw new Refusal(503, `found ${running} generations running: try again later`);
      running += 1;
      try {
        const generation = await start(session, tokenizers, body);
        await stream(generation, tokenizers, response, stallSeconds);
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
async function start(session, tokenizers, body) {
  expect(
    typeof body === "object" && body !== null && !Array.isArray(body),
    "body: expected a JSON object",
  );
  const known = ["token_ids", "text", "max_new_tokens", ...Object.keys(SAMPLING)];
  const unknown = Object.keys(body).find((key) => !known.includes(key));
  expect(unknown === undefined, `${unknown}: expected one of ${known.join(", ")}`);
  const { token_ids, text, max_new_tokens = 256 } = body;
  expect((token_ids === undefined) !== (text === undefined), "expected one of token_ids and text");
  expect(text === undefined || typeof text === "string", "text: expected a string");
  expect(
    token_ids === undefined || Array.isArray(token_ids),
    "token_ids: expected a list of integers",
  );
  const given = Object.entries(SAMPLING).filter(([key]) => body[key] !== undefined);
  for (const [key] of given) {
    expect(
      typeof body[key] === "number",
      `${key}: found ${JSON.stringify(body[key])}, expected a number`,
    );
  }
  const sampling = Object.fromEntries(given.map(([key, name]) => [name, body[key]]));
  const ids = token_ids ?? (await encode(session, tokenizers, text));
  return session.generate(ids, { maxNewTokens: max_new_tokens, sampling });
}

/**
 * Returns the tokens of a text, unless it is so long that they must be more than the model takes.
 */
async function encode(session, tokenizers, text) {
  expect(tokenizers !== undefined, "text: this package has no tokenizer; send token_ids");
  const { encoder } = tokenizers;
  const most = session.files.manifest.longest * encoder.longestToken;
  const bytes = Buffer.byteLength(text);
  expect(
    bytes <= most,
    `text: found ${bytes} bytes, expected at most the ${most} that the model's longest prompt has`,
  );
  return encoder.encode(text);
}

function expect(holds, message) {
  if (!holds) throw new Refusal(400, message);
}

/**
 * Writes an event a token until the end, or until the client is gone: then nothing more is
 * generated.
 */
async function stream(generation, tokenizers, response, stallSeconds) {
  const headers = { "content-type": "text/event-stream", "cache-control": "no-store" };
  const texts = tokenizers && new TextStream(tokenizers.decoder);
  for await (const token of generation) {
    if (!response.headersSent) response.writeHead(200, headers);
    let text = (await texts?.push(token)) ?? null;
    if (generation.finishReason !== null && texts !== undefined) text += await texts.finish();
    await send(response, `data: ${JSON.stringify({ token, text })}\n\n`, stallSeconds);
  }
  const { finishReason: finish_reason, tokens } = generation;
  response.end(`event: done\ndata: ${JSON.stringify({ finish_reason, tokens })}\n\n`);
  await settled(response, "finish", stallSeconds);
}

/**
 * Writes, and waits while the client has not read what came before; one that takes too long is let
 * go.
 */
async function send(response, text, stallSeconds) {
  if (response.destroyed) throw new Gone();
  if (response.write(text)) return;
  await settled(response, "drain", stallSeconds);
  if (response.destroyed) throw new Gone();
}

/**
 * Waits for an event of a response, or for its end: the client's, or ours where it takes too long.
 */
function settled(response, event, seconds) {
  return new Promise((resolve) => {
    const timer = setTimeout(() => response.destroy(), 1000 * seconds);
    const done = () => {
      clearTimeout(timer);
      response.off(event, done);
      response.off("close", done);
      resolve();
    };
    response.on(event, done);
    response.on("close", done);
  });
}

function fail(response, error) {
  if (error instanceof Gone || response.destroyed) return;
  const status = error instanceof Refusal ? error.status : error instanceof GptossError ? 400 : 500;
  if (status === 500) console.error(error);
  const message = JSON.stringify({ error: status === 500 ? "internal error" : error.message });
  if (response.headersSent) response.end(`event: error\ndata: ${message}\n\n`);
  else
    response
      .writeHead(status, { "content-type": "application/json", connection: "close" })
      .end(message);
}

async function main([folder, port = "8080", ...rest]) {
  if (folder === "--help" || folder === "-h") {
    console.log(USAGE);
    return;
  }
  if (folder === undefined || rest.length > 0) throw new GptossError(USAGE.split("\n")[0]);
  if (!/^[0-9]{1,5}$/.test(port) || Number(port) > 65535) {
    throw new GptossError(`PORT: found ${port}, expected 0 to 65535`);
  }
  const library = process.env.GPTOSS_OPS_LIBRARY;
  const session = await Session.open(folder, library === undefined ? {} : { library });
  const server = serve(session, await Tokenizers.open(session.files.folder));
  server.listen(Number(port), "127.0.0.1");
  await once(server, "listening");
  console.error(
    `${session.kernels} kernels; POST http://127.0.0.1:${server.address().port}/generate`,
  );
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  main(process.argv.slice(2)).catch((error) => {
    console.error(`server: ${new GptossError(error.message).message}`);
    process.exit(2);
  });
}
