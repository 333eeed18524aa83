// JSON as strangers write it: bounded in size, depth and digits, before JSON.parse makes objects of
// it.
import { check, GptossError, oneLine } from "./errors.js";
import { readFile } from "./files.js";

export const JSON_LIMIT = 16_000_000; // bytes of one document
const DEPTH_LIMIT = 100; // objects and lists inside each other
const DIGITS_LIMIT = 100; // characters of one number; those this project writes have 25 at most
const NUMBER = /-?[0-9][0-9+.eE-]*/y;
const HALF_OF_A_PAIR = /\p{Surrogate}/u;

/** Returns the document in a file of at most `limit` bytes, undefined where there is no file. */
export function readJson(path: string, limit = JSON_LIMIT): unknown {
  const bytes = readFile(path, limit);
  return bytes && parseJson(bytes, path);
}

/**
 * Returns the value of a JSON text in UTF-8. Refuses what JSON.parse lets pass: a key that appears
 * twice in an object, numbers beyond the range of a double, text that is not Unicode, and what is
 * nested too deep.
 */
export function parseJson(bytes: Uint8Array, where: string): unknown {
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    checkLimits(text);
    return JSON.parse(text);
  } catch (error) {
    throw new GptossError(`${where}: not JSON (${oneLine(error)}); export the package again`);
  }
}

/**
 * Walks over the strings, numbers and brackets of a text; whether they stand in a right order is
 * left to JSON.parse.
 */
function checkLimits(text: string): void {
  const open: (Set<string> | null)[] = []; // the keys of each open object, null for a list
  for (let place = 0; place < text.length;) {
    const character = text[place]!;
    if (character === '"') {
      const end = endOfString(text, place);
      checkString(
        text.slice(place, end),
        /^\s*:/.test(text.slice(end, end + 8)) ? open.at(-1) : null,
      );
      place = end;
      continue;
    }
    if (character === "{") open.push(new Set());
    if (character === "[") open.push(null);
    if (character === "}" || character === "]") open.pop();
    check(
      open.length <= DEPTH_LIMIT,
      "nesting",
      "more",
      `at most ${DEPTH_LIMIT} objects and lists inside each other`,
    );
    NUMBER.lastIndex = place;
    const number = /[-0-9]/.test(character) ? NUMBER.exec(text)?.[0] : undefined;
    if (number !== undefined) checkNumber(number);
    place += number?.length ?? 1;
  }
}

/** Returns the place after the closing quote of the string that begins at `begin`. */
function endOfString(text: string, begin: number): number {
  for (let end = begin; ;) {
    end = text.indexOf('"', end + 1);
    check(end >= 0, "a string", "no closing quote", "one");
    let backslashes = 0;
    while (text[end - 1 - backslashes] === "\\") backslashes += 1;
    if (backslashes % 2 === 0) return end + 1;
  }
}

/**
 * Checks a string with its quotes; `keys` are those that its object has so far, where it is one.
 */
function checkString(string: string, keys: Set<string> | null | undefined): void {
  const value = string.includes("\\") ? (JSON.parse(string) as string) : string.slice(1, -1);
  check(!HALF_OF_A_PAIR.test(value), "a string", "half of a surrogate pair", "Unicode");
  if (!keys) return;
  check(!keys.has(value), "a key", `'${value}' twice in one object`, "each key once");
  keys.add(value);
}

function checkNumber(digits: string): void {
  check(
    digits.length <= DIGITS_LIMIT,
    "a number",
    `${digits.length} digits`,
    `at most ${DIGITS_LIMIT}`,
  );
  check(Number.isFinite(Number(digits)), "a number", digits, "one within the range of a double");
}
