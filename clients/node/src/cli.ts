#!/usr/bin/env node
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Tokenizer } from "@huggingface/tokenizers";
import { GptossError, oneLine, readJson } from "./package.js";
import { type OpenOptions, Session } from "./session.js";
import { verify } from "./verify.js";

const USAGE = "gptoss-node generate PACKAGE (--prompt TEXT | --prompt-tokens 1,2,3) [options], or gptoss-node verify PACKAGE";
const text = { type: "string" } as const;
const opening = { kernels: text, activations: text, threads: text, library: text };
const generating = {
  prompt: text, "prompt-tokens": text, "max-new-tokens": text, temperature: text, "top-k": text, "top-p": text,
  "min-p": text, "repetition-penalty": text, seed: text, json: { type: "boolean" },
} as const;
type Values = Partial<Record<keyof typeof opening | Exclude<keyof typeof generating, "json">, string>> & { json?: boolean };

async function main([command, ...args]: string[]): Promise<number> {
  if (command !== "generate" && command !== "verify") throw new GptossError(`found ${command ?? "no command"}, expected ${USAGE}`);
  const options = command === "verify" ? opening : { ...opening, ...generating };
  const { values, positionals } = parseArgs({ args, options, allowPositionals: true });
  const [path, ...rest] = positionals;
  if (path === undefined || rest.length > 0) throw new GptossError(`found ${positionals.length} packages, expected ${USAGE}`);
  return command === "verify" ? verifyPackage(path, values) : generate(path, values);
}

function open(path: string, values: Values): Promise<Session> {
  const { kernels, activations, library = process.env.GPTOSS_OPS_LIBRARY } = values;
  const given = { kernels, activations, library, threads: number(values, "threads", 1) };
  return Session.open(path, defined(given) as OpenOptions);
}

async function verifyPackage(path: string, values: Values): Promise<number> {
  const verdict = await verify(await open(path, values));
  console.log(JSON.stringify({ ...verdict, package: path }, null, 2));
  return verdict.passed ? 0 : 1;
}

async function generate(path: string, values: Values): Promise<number> {
  if ((values.prompt === undefined) === (values["prompt-tokens"] === undefined))
    throw new GptossError("--prompt and --prompt-tokens: expected one of them");
  const sampling = defined({
    temperature: number(values, "temperature"), topK: number(values, "top-k"), topP: number(values, "top-p"),
    minP: number(values, "min-p"), repetitionPenalty: number(values, "repetition-penalty"), seed: number(values, "seed"),
  });
  const maxNewTokens = number(values, "max-new-tokens") ?? 128;
  const begin = performance.now();
  const session = await open(path, values);
  const loadSeconds = (performance.now() - begin) / 1000;
  const file = readJson(join(path, "tokenizer.json"));
  const tokenizer = file === undefined ? undefined : new Tokenizer(file as object, readJson(join(path, "tokenizer_config.json")) as object);
  if (values.prompt !== undefined && tokenizer === undefined) throw new GptossError(`${path}: found no tokenizer.json; give --prompt-tokens`);
  const prompt = values["prompt-tokens"]?.split(",").map((id) => (/^\s*\d+\s*$/.test(id) ? Number(id) : NaN));
  const ids = prompt ?? tokenizer!.encode(values.prompt!).ids;
  const generation = session.generate(ids, { sampling, maxNewTokens });
  let told = "";
  for await (const _ of generation) {
    const all = tokenizer?.decode(generation.tokens, { skip_special_tokens: true }) ?? generation.tokens.join(",");
    if (all.endsWith("\ufffd") && generation.finishReason === null) continue; // half a character
    if (!values.json) process.stdout.write(all.slice(told.length));
    told = all;
  }
  const { tokens, finishReason, prefillSeconds, decodeSeconds } = generation;
  const timings = {
    load_seconds: loadSeconds,
    prompt_tokens: ids.length, prefill_seconds: prefillSeconds, prefill_tokens_per_second: ids.length / prefillSeconds,
    new_tokens: tokens.length, decode_seconds: decodeSeconds,
    decode_tokens_per_second: tokens.length > 1 ? (tokens.length - 1) / decodeSeconds : null,
  };
  const { activations, kernels } = session;
  const answer = { tokens, text: tokenizer ? told : null, finish_reason: finishReason, timings, activations, kernels, provider: "cpu" };
  console.log(values.json ? JSON.stringify(answer, null, 2) : "");
  return 0;
}

function number(values: Values, name: Exclude<keyof Values, "json">, least = -Infinity): number | undefined {
  const value = values[name] === undefined ? undefined : Number(values[name] || NaN);
  if (value === undefined || value >= least) return value;
  throw new GptossError(`--${name}: found ${values[name]}, expected a number${least > 0 ? `, ${least} or more` : ""}`);
}

/** Leaves out what was not given. */
function defined<T extends object>(object: T): { [K in keyof T]?: NonNullable<T[K]> } {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined)) as never;
}

main(process.argv.slice(2)).then(
  (code) => (process.exitCode = code),
  (error: unknown) => {
    console.error(`gptoss-node: ${oneLine(error)}`);
    process.exitCode = 2;
  },
);
