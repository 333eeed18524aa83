import { createHash, randomBytes } from "node:crypto";
import { check, checkInteger } from "./package.js";

/** How tokens are chosen, greedily unless told otherwise; the steps and their order are those of Hugging Face. */
export interface Sampling {
  /** 0 takes the most probable token; else logits are divided by it. */
  temperature?: number;
  /** Keep the k largest logits, and what ties with the last; 0 keeps all. */
  topK?: number;
  /** Keep the fewest most probable tokens that reach this sum; 1 keeps all. */
  topP?: number;
  /** Keep tokens at least this fraction as probable as the most probable one; 0 keeps all. */
  minP?: number;
  /** Divides positive and multiplies negative logits of tokens already there; 1 is none. */
  repetitionPenalty?: number;
  /** Of the random numbers; without it each run differs. */
  seed?: number;
  /** Ids that end a text, the id being its last token; without it the package's. */
  stopTokens?: number[];
}

/** Chooses the tokens of one sequence; `prompt` counts for the repetition penalty. */
export class Sampler {
  private readonly seen: Set<number>;
  private readonly key: string;
  private draws = 0;

  constructor(private readonly settings: Sampling, prompt: readonly number[]) {
    const { temperature = 0, topK = 0, topP = 1, minP = 0, repetitionPenalty: penalty = 1, seed } = settings;
    checkInteger("top-k", topK, 0);
    checkInteger("seed", seed ?? 0, 0);
    check(temperature >= 0 && temperature < Infinity, "temperature", temperature, "a finite number, 0 or more");
    check(topP > 0 && topP <= 1, "top-p", topP, "above 0, at most 1");
    check(minP >= 0 && minP <= 1, "min-p", minP, "0 to 1");
    check(penalty > 0 && penalty < Infinity, "repetition-penalty", penalty, "a finite number above 0");
    this.seen = new Set(prompt);
    this.key = seed === undefined ? randomBytes(16).toString("hex") : String(seed);
  }

  /** Returns the next token from logits (V) and remembers it. */
  choose(logits: Float32Array): number {
    const top = logits[argmax(logits)]!;
    check(Number.isFinite(top), "logits: the largest", top, "a finite number");
    const { temperature = 0, repetitionPenalty: penalty = 1 } = this.settings;
    const scores = logits.slice();
    for (const token of this.seen) scores[token] = logits[token]! * (logits[token]! < 0 ? penalty : 1 / penalty);
    const token = temperature === 0 ? argmax(scores) : this.draw(restrict(scores, this.settings));
    this.seen.add(token);
    return token;
  }

  /** Inverse transform sampling; the random number is a hash of the seed and the count of draws. */
  private draw(scores: Float32Array): number {
    const random = createHash("sha256").update(`${this.key}:${this.draws++}`).digest().readUIntBE(0, 6) / 2 ** 48;
    const best = argmax(scores);
    let rest = random * mass(scores, scores[best]!);
    const token = scores.findIndex((score) => (rest -= Math.exp(score - scores[best]!)) < 0);
    return token >= 0 ? token : best; // rounding
  }
}

/** Returns scores (V) after temperature, top-k, top-p and min-p; -Infinity marks what is left out. */
export function restrict(logits: Float32Array, settings: Sampling): Float32Array {
  const { temperature = 1, topK = 0, topP = 1, minP = 0 } = settings;
  let scores = logits.map((logit) => logit / temperature);
  const top = scores[argmax(scores)]!;
  const keep = (least: number): void => void (scores = scores.map((score) => (score < least ? -Infinity : score)));
  if (topK > 0 && topK < scores.length) keep(largest(scores, top, (some) => some.length >= topK)[topK - 1]!);
  if (topP < 1) {
    const wanted = topP * mass(scores, top);
    const likely = largest(scores, top, (some) => mass(some, top) >= wanted);
    let sum = 0;
    keep(likely.find((score) => (sum += Math.exp(score - top)) >= wanted) ?? -Infinity);
  }
  if (minP > 0) keep(top + Math.log(minP));
  return scores;
}

/** Returns the largest scores, falling, until `enough`: sorting a vocabulary takes longer than a layer of the model. */
function largest(scores: Float32Array, top: number, enough: (some: Float32Array) => boolean): Float32Array {
  const within = (margin: number): Float32Array => scores.filter((score) => score >= top - margin);
  const margin = [2, 8, 32].find((some) => enough(within(some)));
  return within(margin ?? Infinity).sort().reverse();
}

export function mass(scores: Float32Array, top: number): number {
  return scores.reduce((sum, score) => sum + Math.exp(score - top), 0);
}

/** Returns the place of the largest value, the lowest among equals; of a NaN where there is one. */
export function argmax(values: Float32Array): number {
  let best = 0;
  for (let i = 0; i < values.length; ++i) {
    if (Number.isNaN(values[i]!)) return i;
    if (values[i]! > values[best]!) best = i;
  }
  return best;
}
