#!/usr/bin/env node
import { parseArgs } from "node:util";
import { check, checkInteger, oneLine, oneOf, printable } from "./errors.js";
import {
  type Generation,
  type OpenOptions,
  type Sampling,
  Session,
  TextStream,
  Tokenizer,
  verify,
} from "./index.js";

const USAGE = `usage: gptoss-node verify PACKAGE [OPEN]
       gptoss-node generate PACKAGE (--prompt TEXT | --prompt-tokens 1,2,3) [OPEN]
         [--max-new-tokens N] [--temperature T] [--top-k K] [--top-p P] [--min-p P]
         [--repetition-penalty R] [--seed N] [--json]
         [--stop TEXT]...      end before this text, or at this special token
         [--stop-token ID]...  end at this token, besides the package's own
OPEN:    [--kernels auto|native|portable] [--activations exact|bf16|int8] [--threads N]
         [--library PATH]      of libgptoss_ops.so; GPTOSS_OPS_LIBRARY does the same`;

const text = { type: "string" } as const;
const texts = { type: "string", multiple: true } as const;
const OPEN = { kernels: text, activations: text, threads: text, library: text };
const GENERATE = {
  ...OPEN,
  prompt: text,
  "prompt-tokens": text,
  "max-new-tokens": text,
  temperature: text,
  "top-k": text,
  "top-p": text,
  "min-p": text,
  "repetition-penalty": text,
  seed: text,
  stop: texts,
  "stop-token": texts,
  json: { type: "boolean" },
} as const;
type Values = ReturnType<typeof parseArgs<{ options: typeof GENERATE }>>["values"];
type Flag = Exclude<keyof Values, "json" | "stop" | "stop-token">;

async function main([command = "no command", ...args]: string[]): Promise<number> {
  if (command === "--help" || args.includes("--help")) {
    console.log(USAGE);
    return 0;
  }
  oneOf("command", command, ["generate", "verify", "--help"]);
  // Each of which may be left out.
  const options = (command === "verify" ? OPEN : GENERATE) as typeof GENERATE;
  const { values, positionals } = parseArgs({ args, options, allowPositionals: true });
  check(positionals.length === 1, "PACKAGE", `${positionals.length} packages`, "1");
  const path = positionals[0]!;
  if (command === "generate") return generate(path, values);
  const verdict = await verify(await open(path, values));
  console.log(asJson({ ...verdict, package: path }));
  return verdict.passed ? 0 : 1;
}

function open(path: string, values: Values): Promise<Session> {
  const { kernels, activations, library = process.env.GPTOSS_OPS_LIBRARY } = values;
  const options = { kernels, activations, library, threads: numberOf(values, "threads") };
  return Session.open(path, options as OpenOptions); // checks what they are
}

async function generate(path: string, values: Values): Promise<number> {
  const { prompt, "prompt-tokens": tokenIds, json } = values;
  check(
    (prompt === undefined) !== (tokenIds === undefined),
    "--prompt and --prompt-tokens",
    "0 or 2",
    "one of them",
  );
  const begin = performance.now();
  const session = await open(path, values);
  const loadSeconds = (performance.now() - begin) / 1000;
  const tokenizer = await Tokenizer.open(session.files.folder);
  try {
    const isNeeded = prompt !== undefined || values.stop !== undefined;
    check(
      tokenizer !== undefined || !isNeeded,
      path,
      "no tokenizer.json",
      "--prompt-tokens, and no --stop",
    );
    const ids = prompt === undefined ? idsOf(tokenIds!) : await tokenizer!.encode(prompt);
    const { texts, sampling } = settings(values, session, tokenizer);
    const maxNewTokens = numberOf(values, "max-new-tokens") ?? 128;
    const generation = session.generate(ids, { sampling, maxNewTokens });
    const stream = tokenizer && new TextStream(tokenizer, texts);
    const said = await write(generation, stream, json ? undefined : writer());
    if (json)
      console.log(
        asJson(
          report(session, generation, { said, stream, loadSeconds, promptTokens: ids.length }),
        ),
      );
    return 0;
  } finally {
    await tokenizer?.close();
  }
}

/**
 * Writes a generation as it comes, as text or, without a tokenizer, as ids; returns all that it
 * wrote.
 */
async function write(
  generation: Generation,
  stream?: TextStream,
  out?: (piece: string) => void,
): Promise<string> {
  let said = "";
  const say = (piece: string): void => {
    said += piece;
    out?.(piece);
  };
  for await (const token of generation) {
    const separator = generation.tokens.length > 1 ? "," : "";
    say(stream === undefined ? `${separator}${token}` : await stream.push(token));
    if (stream?.stopped) break;
  }
  say((await stream?.finish()) ?? "");
  out?.("\n");
  return said;
}

/** Returns what `gptoss-onnx generate --json` prints. */
function report(session: Session, generation: Generation, run: Run) {
  const { tokens, prefillSeconds: prefill_seconds, decodeSeconds: decode_seconds } = generation;
  const decoded = tokens.length - 1; // the first one is the prefill's
  return {
    tokens,
    text: run.stream === undefined ? null : run.said,
    finish_reason: run.stream?.stopped ? "stop" : generation.finishReason,
    timings: {
      load_seconds: run.loadSeconds,
      prompt_tokens: run.promptTokens,
      prefill_seconds,
      prefill_tokens_per_second: run.promptTokens / prefill_seconds,
      new_tokens: tokens.length,
      decode_seconds,
      decode_tokens_per_second: decoded > 0 ? decoded / decode_seconds : null,
    },
    activations: session.activations,
    kernels: session.kernels,
    provider: "cpu",
  };
}

/** What the document says beside the generation. */
interface Run {
  said: string;
  stream: TextStream | undefined;
  loadSeconds: number;
  promptTokens: number;
}

/** Returns the settings of sampling, and the texts that end the text. */
function settings(values: Values, session: Session, tokenizer: Tokenizer | undefined) {
  const { texts, tokens } = splitStops(values.stop ?? [], tokenizer);
  const named = (values["stop-token"] ?? []).map((id) => parseNumber("--stop-token", id));
  for (const id of named) checkInteger("--stop-token", id, 0, session.vocab - 1);
  const sampling: Sampling = {
    temperature: numberOf(values, "temperature"),
    topK: numberOf(values, "top-k"),
    topP: numberOf(values, "top-p"),
    minP: numberOf(values, "min-p"),
    repetitionPenalty: numberOf(values, "repetition-penalty"),
    seed: numberOf(values, "seed"),
  };
  if (named.length + tokens.length > 0)
    sampling.stopTokens = [...session.files.stopTokens, ...named, ...tokens];
  if (texts.length === 0 && (sampling.stopTokens ?? session.files.stopTokens).length === 0) {
    console.error(
      "gptoss-node: the package names no stop token: only --max-new-tokens ends the text",
    );
  }
  return { texts, sampling };
}

function idsOf(list: string): number[] {
  return list.split(",").map((id) => parseNumber("--prompt-tokens", id));
}

/** Sorts what --stop names: a special token never shows in a text, so it ends one as a token. */
function splitStops(stops: readonly string[], tokenizer: Tokenizer | undefined) {
  const texts: string[] = [];
  const tokens: number[] = [];
  const specials = tokenizer?.specialTokens ?? new Map<string, number>();
  for (const stop of stops) {
    check(stop !== "", "--stop", stop, "a text");
    const token = specials.get(stop);
    const within = [...specials.keys()].find((special) => stop.includes(special));
    if (token !== undefined) tokens.push(token);
    else
      check(
        within === undefined,
        "--stop",
        `'${stop}'`,
        `a text without the special token ${within}, or that alone`,
      );
    if (token === undefined) texts.push(stop);
  }
  return { texts, tokens };
}

/** Returns what writes generated text: on a terminal, its control characters are escaped. */
function writer(): (piece: string) => void {
  // A reader that has gone, such as `head`, wants no more: that is no error.
  process.stdout.on("error", (error: NodeJS.ErrnoException) =>
    process.exit(error.code === "EPIPE" ? 0 : 2),
  );
  const shown = process.stdout.isTTY
    ? (piece: string) => printable(piece, "\n\t")
    : (piece: string) => piece;
  return (piece) => void process.stdout.write(shown(piece));
}

function numberOf(values: Values, flag: Flag): number | undefined {
  const value = values[flag];
  return value === undefined ? undefined : parseNumber(`--${flag}`, value);
}

function parseNumber(name: string, text: string): number {
  const value = text.trim() === "" ? NaN : Number(text);
  check(!Number.isNaN(value), name, `'${text}'`, "a number");
  return value;
}

function asJson(document: unknown): string {
  return JSON.stringify(document, null, 2);
}

process.exitCode = await main(process.argv.slice(2)).catch((error: unknown) => {
  console.error(`gptoss-node: ${oneLine(error)}`);
  return 2;
});
