#!/usr/bin/env node
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Tokenizer } from "@huggingface/tokenizers";
import { type OpenOptions, Session, verify } from "./index.js";
import { check, oneLine, oneOf, readJson } from "./package.js";

const USAGE = `gptoss-node verify PACKAGE [OPEN]
gptoss-node generate PACKAGE (--prompt TEXT | --prompt-tokens 1,2,3) [OPEN] [--max-new-tokens N] [--temperature T]
  [--top-k K] [--top-p P] [--min-p P] [--repetition-penalty R] [--seed N] [--json]
OPEN: [--kernels auto|native|portable] [--activations exact|bf16|int8] [--threads N] [--library PATH]`;
const text = { type: "string" } as const;
const OPEN = { kernels: text, activations: text, threads: text, library: text };
const GENERATE = {
  ...OPEN, prompt: text, "prompt-tokens": text, "max-new-tokens": text, temperature: text, "top-k": text,
  "top-p": text, "min-p": text, "repetition-penalty": text, seed: text, json: { type: "boolean" },
} as const;
type Values = ReturnType<typeof parseArgs<{ options: typeof GENERATE }>>["values"];

async function main([command = "no command", ...args]: string[]): Promise<number> {
  if (command === "--help") return console.log(USAGE), 0;
  oneOf("command", command, ["generate", "verify", "--help"]);
  const options = (command === "verify" ? OPEN : GENERATE) as typeof GENERATE; // each of which may be left out
  const { values, positionals } = parseArgs({ args, options, allowPositionals: true });
  check(positionals.length === 1, "PACKAGE", `${positionals.length} packages`, "1");
  if (command === "generate") return generate(positionals[0]!, values);
  const verdict = await verify(await open(positionals[0]!, values));
  console.log(JSON.stringify({ ...verdict, package: positionals[0] }, null, 2));
  return verdict.passed ? 0 : 1;
}

function open(path: string, values: Values): Promise<Session> {
  const options = { library: process.env.GPTOSS_OPS_LIBRARY, ...values, threads: number("threads", values.threads) };
  return Session.open(path, options as OpenOptions); // checks what they are
}

async function generate(path: string, values: Values): Promise<number> {
  const { prompt, "prompt-tokens": tokenIds, json } = values;
  check((prompt === undefined) !== (tokenIds === undefined), "--prompt and --prompt-tokens", "0 or 2", "one of them");
  const setting = (flag: Exclude<keyof Values, "json">): number | undefined => number(flag, values[flag]);
  const sampling = {
    temperature: setting("temperature"), topK: setting("top-k"), topP: setting("top-p"), minP: setting("min-p"),
    repetitionPenalty: setting("repetition-penalty"), seed: setting("seed"),
  };
  const maxNewTokens = setting("max-new-tokens") ?? 128;
  const begin = performance.now();
  const session = await open(path, values);
  const load_seconds = (performance.now() - begin) / 1000;
  const file = readJson(join(path, "tokenizer.json")) as object | undefined;
  const tokenizer = file && new Tokenizer(file, readJson(join(path, "tokenizer_config.json")) as object);
  check(tokenIds !== undefined || tokenizer !== undefined, path, "no tokenizer.json", "--prompt-tokens");
  const ids = tokenIds?.split(",").map((id) => number("prompt-tokens", id)!) ?? tokenizer!.encode(prompt!).ids;
  const generation = session.generate(ids, { sampling, maxNewTokens });
  const { tokens } = generation;
  let text = "";
  for await (const _ of generation) {
    const all = tokenizer?.decode(tokens, { skip_special_tokens: true }) ?? tokens.join(",");
    if (all.endsWith("\ufffd") && generation.finishReason === null) continue; // half a character
    if (!json) process.stdout.write(all.slice(text.length));
    text = all;
  }
  if (!json) return console.log(), 0;
  const { finishReason: finish_reason, prefillSeconds: prefill_seconds, decodeSeconds: decode_seconds } = generation;
  const prompt_tokens = ids.length, new_tokens = tokens.length;
  const timings = {
    load_seconds, prompt_tokens, prefill_seconds, prefill_tokens_per_second: prompt_tokens / prefill_seconds,
    new_tokens, decode_seconds, decode_tokens_per_second: new_tokens > 1 ? (new_tokens - 1) / decode_seconds : null,
  };
  const { activations, kernels } = session, said = { tokens, text: tokenizer ? text : null, finish_reason };
  console.log(JSON.stringify({ ...said, timings, activations, kernels, provider: "cpu" }, null, 2));
  return 0;
}

function number(flag: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const value = text.trim() === "" ? NaN : Number(text);
  check(!Number.isNaN(value), `--${flag}`, `'${text}'`, "a number");
  return value;
}

process.exitCode = await main(process.argv.slice(2)).catch((error: unknown) => {
  console.error(`gptoss-node: ${oneLine(error)}`);
  return 2;
});
