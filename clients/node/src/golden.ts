import { check, checkInteger } from "./errors.js";
import { Fields, type Read, readList } from "./fields.js";

/** What the reference makes of one prompt; logits belong to `positions`. */
export interface GoldenCase {
  name: string;
  token_ids: number[];
  greedy: number[];
  positions: number[];
  top_indices: number[][];
  top_logits: number[][];
  sampled_logits: number[][];
  logsumexp: number[];
}

/** `golden/golden.json`: every case, and the tokens whose logits `sampled_logits` are. */
export interface Golden {
  sampled_indices: number[];
  cases: GoldenCase[];
}

/** Checks a document for a vocabulary of `vocab` tokens; `where` is its path. */
export function parseGolden(document: unknown, where: string, vocab: number): Golden {
  const golden = new Fields(document, where);
  golden.oneOf("format", ["gptoss-onnx-golden"]);
  golden.oneOf("format_version", [1]);
  const tokens = (fields: Fields, key: string): number[] => fields.list(key, integer(vocab - 1));
  const sampled_indices = tokens(golden, "sampled_indices");
  const cases = golden.objects("cases", (entry) => {
    const token_ids = entry.list("token_ids", integer(vocab - 1), 1);
    const positions = entry.list("positions", integer(token_ids.length - 1));
    const count = positions.length;
    const top_indices = entry.list("top_indices", listOf(integer(vocab - 1)), count, count);
    const width = sampled_indices.length;
    const found: GoldenCase = {
      name: entry.text("name"),
      token_ids,
      greedy: tokens(entry, "greedy"),
      positions,
      top_indices,
      top_logits: entry.list("top_logits", listOf(number), count, count),
      sampled_logits: entry.list("sampled_logits", listOf(number, width, width), count, count),
      logsumexp: entry.list("logsumexp", number, count, count),
    };
    found.top_logits.forEach(({ length }, i) => {
      const expected = top_indices[i]!.length;
      check(
        length === expected,
        `${entry.name("top_logits")}[${i}]`,
        `${length} logits`,
        `${expected}`,
      );
    });
    return found;
  });
  return { sampled_indices, cases };
}

/** Returns what reads a list of numbers. */
function listOf(read: Read<number>, least?: number, most?: number): Read<number[]> {
  return (value, name) => readList(value, name, read, least, most);
}

function integer(most: number): Read<number> {
  return (value, name) => {
    checkInteger(name, value, 0, most);
    return value;
  };
}

function number(value: unknown, name: string): number {
  check(Number.isFinite(value), name, value, "a finite number");
  return value as number;
}
