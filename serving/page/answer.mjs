/**
 * Asks the server, and reads its stream of events.
 *
 * @typedef {{role: "system" | "user" | "assistant", content: string}} Message
 * @typedef {{completion_tokens: number, prompt_tokens: number}} Usage
 * @typedef {{reasoning: string, content: string, finish: string | null, usage: Usage | null}} Piece
 */

/** Something went wrong; the message is one line for a person. `status` is 0 beyond HTTP. */
export class AskError extends Error {
  /** @param {string} message @param {number} [status] */
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

/** Return the name of the model; throws an AskError, of status 401 where a key is needed. */
export async function modelName(/** @type {string} */ key) {
  const response = await send("v1/models", { headers: headers(key) });
  const document = await json(response);
  return String(document?.data?.[0]?.id ?? "");
}

/**
 * Send a request of /v1/chat/completions, and yield what comes.
 * Throws an AskError, and an AbortError once `signal` says so.
 * @param {Record<string, unknown>} request
 * @param {string} key  "" for none
 * @param {AbortSignal} signal
 * @returns {AsyncGenerator<Piece>}
 */
export async function* ask(request, key, signal) {
  const asked = { ...request, stream: true, stream_options: { include_usage: true } };
  const response = await send("v1/chat/completions", {
    method: "POST",
    headers: { ...headers(key), "Content-Type": "application/json" },
    body: JSON.stringify(asked),
    signal,
  });
  if (!response.body) throw new AskError("the server sent no answer");
  for await (const data of events(response.body)) {
    if (data === "[DONE]") return;
    const chunk = parsed(data);
    if (chunk.error) throw new AskError(oneLine(chunk.error.message));
    const choice = chunk.choices?.[0];
    yield {
      reasoning: choice?.delta?.reasoning_content ?? "",
      content: choice?.delta?.content ?? "",
      finish: choice?.finish_reason ?? null,
      usage: chunk.usage ?? null,
    };
  }
  throw new AskError("the connection ended before the answer did");
}

/** @param {string} key @returns {Record<string, string>} */
function headers(key) {
  return key ? { Authorization: `Bearer ${key}` } : {};
}

/** Fetch, and turn what is no success into an AskError. */
async function send(/** @type {string} */ path, /** @type {RequestInit} */ options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new AskError("the server cannot be reached; does it still run?");
  }
  if (response.ok) return response;
  const said = (await json(response))?.error?.message;
  const wait = response.headers.get("Retry-After");
  const reason = said ? oneLine(said) : `the server answered with status ${response.status}`;
  const again = wait && /^\d{1,5}$/.test(wait) ? ` (again in ${wait} s)` : "";
  throw new AskError(reason + again, response.status);
}

/** @param {Response} response */
async function json(response) {
  try {
    return await response.json();
  } catch {
    return null;
  }
}

/** @param {string} data */
function parsed(data) {
  try {
    return JSON.parse(data);
  } catch {
    throw new AskError("the server sent an event that is no JSON");
  }
}

/**
 * Yield the data of each server-sent event.
 * @param {ReadableStream<Uint8Array>} body
 */
async function* events(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const lines = (rest + decoder.decode(value, { stream: true })).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines)
        // Each event of this API is one line; others are comments that keep the connection open.
        if (line.startsWith("data:")) yield line.slice(5).trim();
    }
  } finally {
    // Whoever stops listening lets the server know.
    reader.cancel().catch(() => {});
  }
}

/** @param {unknown} text */
function oneLine(text) {
  return String(text).replace(/\s+/g, " ").slice(0, 500);
}
