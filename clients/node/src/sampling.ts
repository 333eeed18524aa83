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
  private readonly key = String(this.settings.seed ?? randomBytes(16).toString("hex"));
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
  }

  /** Returns the next token from logits (V) and remembers it. */
  choose(logits: Float32Array): number {
    const { temperature = 0, repetitionPenalty: penalty = 1 } = this.settings;
    const scores = penalty === 1 ? logits : logits.slice();
    if (penalty !== 1)
      for (const token of this.seen) scores[token] = logits[token]! * (logits[token]! < 0 ? penalty : 1 / penalty);
    const top = largest(scores);
    check(Number.isFinite(top), "logits: the largest", top, "a finite number");
    const token = temperature === 0 ? scores.indexOf(top) : this.draw(restrict(scores, this.settings));
    this.seen.add(token);
    return token;
  }

  /** Inverse transform sampling; the random number is a hash of the seed and the count of draws. */
  private draw(scores: Float32Array): number {
    const random = createHash("sha256").update(`${this.key}:${this.draws++}`).digest().readUIntBE(0, 6) / 2 ** 48;
    const top = largest(scores);
    let rest = random * mass(scores, top);
    const token = scores.findIndex((score) => (rest -= Math.exp(score - top)) < 0);
    return token >= 0 ? token : scores.indexOf(top); // rounding
  }
}

/** Returns scores (V) after temperature, top-k, top-p and min-p; -Infinity marks what is left out. */
export function restrict(logits: Float32Array, settings: Sampling): Float32Array {
  const { temperature = 1, topK = 0, topP = 1, minP = 0 } = settings;
  const scores = logits.map((logit) => logit / temperature);
  const top = largest(scores);
  const least = Math.max(leastLikely(scores, top, topK || scores.length, topP), top + Math.log(minP));
  return scores.map((score) => (score < least ? -Infinity : score));
}

/** Returns the least score that top-k and then top-p keep. */
function leastLikely(scores: Float32Array, top: number, topK: number, topP: number): number {
  if (topK >= scores.length && topP === 1) return -Infinity;
  const all = mass(scores, top);
  // Sorting a vocabulary takes longer than a layer of the model: first what is close to the top, at last everything.
  for (let margin = 2; ; margin **= 3) {
    const falling = scores.filter((score) => score >= top - margin).sort().reverse();
    const last = topK < scores.length ? falling[topK - 1] : -Infinity;
    if (last === undefined) continue;
    let wanted = topP * (last > -Infinity ? mass(falling.filter((score) => score >= last), top) : all);
    const likely = topP < 1 ? falling.find((score) => (wanted -= Math.exp(score - top)) <= 0) : last;
    if (likely !== undefined || margin === Infinity) return Math.max(likely ?? last, last);
  }
}

export function mass(scores: Float32Array, top: number): number {
  return scores.reduce((sum, score) => sum + Math.exp(score - top), 0);
}

/** Returns the largest value, NaN where there is one. */
export function largest(values: Float32Array): number {
  let most = -Infinity; // by index and comparison: for … of and Math.max take six times as long, a tenth of a step
  for (let i = 0; i < values.length && !Number.isNaN(most); i++) if (!(values[i]! <= most)) most = values[i]!;
  return most;
}
