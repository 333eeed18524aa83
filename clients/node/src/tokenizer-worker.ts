// The thread behind src/tokenizer.ts: it reads the tokenizer's files and answers one call after
// another.
import { parentPort, workerData } from "node:worker_threads";
import { Tokenizer } from "@huggingface/tokenizers";
import { GptossError, oneLine } from "./errors.js";
import { confined } from "./files.js";
import { JSON_LIMIT, readJson } from "./json.js";
import type { Description, TokenizerAnswer, TokenizerCall } from "./tokenizer.js";

const TOKENIZER_LIMIT = 8 * JSON_LIMIT; // bytes; gpt-oss's has 28 million

const folder = workerData as string;
let tokenizer: Tokenizer | undefined | "not read" = "not read";

/** Returns the tokenizer, undefined where the package has none. */
function opened(): Tokenizer | undefined {
  if (tokenizer !== "not read") return tokenizer;
  const path = confined(folder, "tokenizer.json");
  const document = readJson(path, TOKENIZER_LIMIT);
  const config = readJson(confined(folder, "tokenizer_config.json")) ?? {};
  try {
    tokenizer =
      document === undefined ? undefined : new Tokenizer(document as object, config as object);
  } catch (error) {
    throw new GptossError(`${path}: cannot be used (${oneLine(error)})`);
  }
  return tokenizer;
}

function answer({ method, argument }: TokenizerCall): unknown {
  const found = opened();
  if (found === undefined) {
    if (method === "describe") return null;
    throw new GptossError(`${folder}: found no tokenizer.json, expected one`);
  }
  try {
    if (method === "describe") return describe(found);
    return method === "encode"
      ? encode(found, argument as string)
      : decode(found, argument as number[]);
  } catch (error) {
    throw new GptossError(`${folder}: tokenizer: ${method} failed (${oneLine(error)})`);
  }
}

/** Returns the ids of a text; the library gives a token outside the vocabulary no id at all. */
function encode(found: Tokenizer, text: string): number[] {
  const { ids } = found.encode(text);
  if (!ids.every(Number.isSafeInteger)) throw new Error("found a token without an id");
  return ids;
}

function decode(found: Tokenizer, ids: number[]): string {
  if (ids.length === 0) return ""; // which the library refuses
  // Cleaning up takes back spaces that were given already, and no other client does it.
  return found.decode(ids, { skip_special_tokens: true, clean_up_tokenization_spaces: false });
}

function describe(found: Tokenizer): Description {
  const added = [...found.get_added_tokens_decoder()];
  const specials = added.filter(([, token]) => token.special);
  let longest = 0;
  for (const token of found.get_vocab().keys())
    longest = Math.max(longest, Buffer.byteLength(token));
  return { specials: specials.map(([id, token]) => [token.content, id]), longest };
}

parentPort!.on("message", (call: TokenizerCall) => {
  let said: TokenizerAnswer;
  try {
    said = { id: call.id, value: answer(call) };
  } catch (error) {
    said = { id: call.id, error: oneLine(error) };
  }
  parentPort!.postMessage(said);
});
