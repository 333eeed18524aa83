#!/usr/bin/env node
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Tokenizer } from "@huggingface/tokenizers";
import { GptossError, oneLine, readJson } from "./package.js";
import { Session } from "./session.js";
import { verify } from "./verify.js";

const USAGE = `gptoss-node verify PACKAGE [OPEN]
gptoss-node generate PACKAGE (--prompt TEXT | --prompt-tokens 1,2,3) [OPEN] [--max-new-tokens N] [--temperature T]
  [--top-k K] [--top-p P] [--min-p P] [--repetition-penalty R] [--seed N] [--json]
OPEN: [--kernels auto|native|portable] [--activations exact|bf16|int8] [--threads N] [--library PATH]`;
const OPEN = ["kernels", "activations", "threads", "library"];
const SAMPLING = {
  temperature: "temperature", "top-k": "topK", "top-p": "topP", "min-p": "minP",
  "repetition-penalty": "repetitionPenalty", seed: "seed",
};
type Values = Record<string, string | undefined>;

async function main([command, ...args]: string[]): Promise<number> {
  if (command === "--help") return console.log(USAGE), 0;
  if (command !== "generate" && command !== "verify")
    throw new GptossError(`found ${command ?? "no command"}, expected generate, verify or --help`);
  const generating = ["prompt", "prompt-tokens", "max-new-tokens", ...Object.keys(SAMPLING), "json"];
  const flags = command === "verify" ? OPEN : [...OPEN, ...generating];
  const kind = (flag: string) => ({ type: flag === "json" ? "boolean" : "string" }) as const;
  const options = Object.fromEntries(flags.map((flag) => [flag, kind(flag)]));
  const { values, positionals } = parseArgs({ args, options, allowPositionals: true });
  const [path, ...more] = positionals;
  if (path === undefined || more.length > 0) throw new GptossError(`found ${positionals.length} packages, expected 1`);
  return command === "verify" ? verifyPackage(path, values as Values) : generate(path, values as Values);
}

function open(path: string, { threads, ...values }: Values): Promise<Session> {
  const { kernels, activations, library = process.env.GPTOSS_OPS_LIBRARY } = values;
  const given = { kernels, activations, library, threads: threads && number("threads", threads) };
  return Session.open(path, Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)));
}

async function verifyPackage(path: string, values: Values): Promise<number> {
  const verdict = await verify(await open(path, values));
  console.log(JSON.stringify({ ...verdict, package: path }, null, 2));
  return verdict.passed ? 0 : 1;
}

async function generate(path: string, values: Values): Promise<number> {
  const { prompt, "prompt-tokens": tokenIds, json } = values;
  if ((prompt === undefined) === (tokenIds === undefined))
    throw new GptossError("--prompt and --prompt-tokens: expected one of them");
  const given = Object.entries(SAMPLING).filter(([flag]) => values[flag] !== undefined);
  const sampling = Object.fromEntries(given.map(([flag, key]) => [key, number(flag, values[flag]!)]));
  const maxNewTokens = number("max-new-tokens", values["max-new-tokens"] ?? "128");
  const begin = performance.now();
  const session = await open(path, values);
  const load_seconds = (performance.now() - begin) / 1000;
  const file = readJson(join(path, "tokenizer.json")) as object | undefined;
  const tokenizer = file && new Tokenizer(file, readJson(join(path, "tokenizer_config.json")) as object);
  if (!tokenIds && !tokenizer) throw new GptossError(`${path}: found no tokenizer.json; give --prompt-tokens`);
  const ids = tokenIds?.split(",").map((id) => number("prompt-tokens", id)) ?? tokenizer!.encode(prompt!).ids;
  const generation = session.generate(ids, { sampling, maxNewTokens });
  const { tokens } = generation;
  let text = "";
  for await (const _ of generation) {
    const all = tokenizer?.decode(tokens, { skip_special_tokens: true }) ?? tokens.join(",");
    if (all.endsWith("\ufffd") && generation.finishReason === null) continue; // half a character
    if (!json) process.stdout.write(all.slice(text.length));
    text = all;
  }
  const { finishReason: finish_reason, prefillSeconds: prefill_seconds, decodeSeconds: decode_seconds } = generation;
  const prompt_tokens = ids.length, new_tokens = tokens.length;
  const timings = {
    load_seconds, prompt_tokens, prefill_seconds, prefill_tokens_per_second: prompt_tokens / prefill_seconds,
    new_tokens, decode_seconds, decode_tokens_per_second: new_tokens > 1 ? (new_tokens - 1) / decode_seconds : null,
  };
  const { activations, kernels } = session;
  const said = { tokens, text: tokenizer ? text : null, finish_reason };
  console.log(json ? JSON.stringify({ ...said, timings, activations, kernels, provider: "cpu" }, null, 2) : "");
  return 0;
}

function number(name: string, text: string): number {
  const value = text.trim() === "" ? NaN : Number(text);
  if (Number.isNaN(value)) throw new GptossError(`--${name}: found '${text}', expected a number`);
  return value;
}

main(process.argv.slice(2)).then(
  (code) => (process.exitCode = code),
  (error: unknown) => {
    console.error(`gptoss-node: ${oneLine(error)}`);
    process.exitCode = 2;
  },
);
