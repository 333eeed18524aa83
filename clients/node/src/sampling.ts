import { createHash, randomBytes } from "node:crypto";
import { check, checkInteger, checkOptions } from "./errors.js";

/**
 * How tokens are chosen, greedily unless told otherwise; the stages and their order are those of
 * Hugging Face.
 */
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
  stopTokens?: readonly number[];
}

const KEYS = ["temperature", "topK", "topP", "minP", "repetitionPenalty", "seed", "stopTokens"];

/** Checks every setting; a text is refused even if it looks like a number. */
function checkSampling(sampling: Sampling): void {
  checkOptions("sampling", sampling, KEYS);
  const {
    temperature = 0,
    topK = 0,
    topP = 1,
    minP = 0,
    repetitionPenalty = 1,
    seed = 0,
    stopTokens = [],
  } = sampling;
  checkInteger("top-k", topK, 0);
  checkInteger("seed", seed, 0);
  const isFinite = Number.isFinite; // false for all that is no number
  check(
    isFinite(temperature) && temperature >= 0,
    "temperature",
    temperature,
    "a finite number, 0 or more",
  );
  check(isFinite(topP) && topP > 0 && topP <= 1, "top-p", topP, "a number above 0, at most 1");
  check(isFinite(minP) && minP >= 0 && minP <= 1, "min-p", minP, "a number from 0 to 1");
  const penalty = repetitionPenalty;
  check(isFinite(penalty) && penalty > 0, "repetition-penalty", penalty, "a finite number above 0");
  check(Array.isArray(stopTokens), "stop tokens", stopTokens, "a list of token ids");
  for (const token of stopTokens) checkInteger("stop tokens: an id", token, 0);
}

/**
 * Chooses the tokens of one sequence. All arithmetic is in doubles, and the largest score is
 * subtracted before anything divides or is an exponent, so no setting and no logits overflow.
 * tests/clients/sampler_cases.json defines every stage.
 */
export class Sampler {
  private readonly settings: Required<Omit<Sampling, "seed" | "stopTokens">>;
  private readonly seen: Set<number>;
  private readonly key: string;
  private draws = 0;

  /** `seen` are the tokens of the sequence so far, which count for the repetition penalty. */
  constructor(sampling: Sampling, seen: Iterable<number>) {
    checkSampling(sampling);
    const { temperature = 0, topK = 0, topP = 1, minP = 0, repetitionPenalty = 1, seed } = sampling;
    this.settings = { temperature, topK, topP, minP, repetitionPenalty };
    this.key = String(seed ?? randomBytes(16).toString("hex"));
    this.seen = new Set(seen);
  }

  /** Counts more tokens as said. */
  see(tokens: Iterable<number>): void {
    for (const token of tokens) this.seen.add(token);
  }

  /** Returns the next token from logits (V) and remembers it. */
  choose(logits: Float32Array): number {
    const isGreedy = this.settings.temperature === 0;
    const token = isGreedy ? this.greedy(logits) : this.draw(this.scores(logits));
    this.seen.add(token);
    return token;
  }

  /**
   * Returns how probable each token (V) is; at temperature 0 the one that is taken has all of it.
   */
  probabilities(logits: Float32Array): Float64Array {
    const scores = this.scores(logits);
    const best = scores.indexOf(largest(scores));
    if (this.settings.temperature === 0) return scores.map((_, token) => (token === best ? 1 : 0));
    const kept = restrict(scores, this.settings);
    const sum = mass(kept, 0);
    return kept.map((score) => Math.exp(score) / sum);
  }

  /** Returns the most probable token, the lowest id among equals. */
  private greedy(logits: Float32Array): number {
    // Doubles have the same order, and a copy of them would take longer than the choice.
    if (this.settings.repetitionPenalty === 1) return logits.indexOf(finiteTop(logits));
    const scores = this.scores(logits);
    return scores.indexOf(largest(scores));
  }

  /** Returns logits (V) as doubles, after the repetition penalty. */
  private scores(logits: Float32Array): Float64Array {
    finiteTop(logits);
    const scores = new Float64Array(logits);
    const { repetitionPenalty: penalty } = this.settings;
    if (penalty === 1) return scores;
    for (const token of this.seen) {
      const logit = scores[token];
      // -Infinity stays; what else leaves the doubles is the largest of its sign.
      if (logit === undefined || logit === -Infinity) continue;
      const penalized = logit > 0 ? logit / penalty : logit * penalty;
      scores[token] = Math.max(-Number.MAX_VALUE, Math.min(penalized, Number.MAX_VALUE));
    }
    return scores;
  }

  /** Inverse transform sampling; the random number is a hash of the seed and the count of draws. */
  private draw(scores: Float64Array): number {
    const kept = restrict(scores, this.settings);
    const digest = createHash("sha256").update(`${this.key}:${this.draws}`).digest();
    this.draws += 1;
    const random = digest.readUIntBE(0, 6) / 2 ** 48;
    let rest = random * mass(kept, 0);
    const token = kept.findIndex((score) => (rest -= Math.exp(score)) < 0);
    return token >= 0 ? token : kept.indexOf(0); // rounding
  }
}

/** Returns the largest logit; refuses logits whose largest is not a finite number. */
function finiteTop(logits: Float32Array): number {
  const top = largest(logits);
  check(
    Number.isFinite(top),
    "logits: the largest",
    top,
    "a finite number; gptoss-onnx validate tells which op fails",
  );
  return top;
}

type Restriction = Required<Pick<Sampling, "temperature" | "topK" | "topP" | "minP">>;

/**
 * Returns scores (V) after temperature, top-k, top-p and min-p: the largest is 0, and -Infinity
 * marks what is left out.
 */
export function restrict(
  scores: Float64Array,
  { temperature, topK, topP, minP }: Restriction,
): Float64Array {
  const top = largest(scores);
  const scaled = scores.map((score) => (score === top ? 0 : (score - top) / temperature));
  const least = Math.max(leastLikely(scaled, topK || scaled.length, topP), Math.log(minP));
  return scaled.map((score) => (score < least ? -Infinity : score));
}

/** Returns the least score that top-k and then top-p keep, of scores (V) whose largest is 0. */
function leastLikely(scores: Float64Array, topK: number, topP: number): number {
  if (topK >= scores.length && topP === 1) return -Infinity;
  const all = mass(scores, 0);
  // Sorting a vocabulary takes longer than a layer of the model: first what is close to the top, at
  // last everything.
  for (let margin = 2; ; margin **= 3) {
    const falling = scores
      .filter((score) => score >= -margin)
      .sort()
      .reverse();
    const last = topK < scores.length ? falling[topK - 1] : -Infinity;
    if (last === undefined) continue;
    const candidates = falling.filter((score) => score >= last);
    let wanted = topP * (last > -Infinity ? mass(candidates, 0) : all);
    const likely = topP < 1 ? candidates.find((score) => (wanted -= Math.exp(score)) <= 0) : last;
    if (likely !== undefined || margin === Infinity) return Math.max(likely ?? last, last);
  }
}

/** Returns the sum of the exponentials of scores, each less `top`. */
export function mass(scores: Float64Array | Float32Array, top: number): number {
  let sum = 0;
  for (let i = 0; i < scores.length; i += 1) sum += Math.exp(scores[i]! - top);
  return sum;
}

/** Returns the largest value, NaN where there is one. */
export function largest(values: Float64Array | Float32Array): number {
  // By index and comparison: for … of and Math.max take six times as long, a tenth of a step.
  let most = -Infinity;
  for (let i = 0; i < values.length && !Number.isNaN(most); i += 1) {
    if (!(values[i]! <= most)) most = values[i]!;
  }
  return most;
}
