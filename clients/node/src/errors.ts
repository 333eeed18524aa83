// Characters: what ONNX Runtime says can be as long as its model wants.
const LONGEST_MESSAGE = 2000;
const LONGEST_VALUE = 80;
// Control characters, marks that turn the direction of writing, and surrogates without their
// partner.
const UNPRINTABLE = /[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]|\p{Surrogate}/gu;

/**
 * Wrong input or environment, in one line: the thing, what was found, what was expected, what to
 * do. The message may quote what strangers wrote, so it is made printable here, for everyone who
 * shows it.
 */
export class GptossError extends Error {
  constructor(message: string) {
    super(printable(cut(message.replace(/\s+/g, " ").trim(), LONGEST_MESSAGE)));
  }
}

/**
 * Returns a text with its control characters escaped, so that printing it cannot steer a terminal.
 */
export function printable(text: string, keep = ""): string {
  return text.replace(UNPRINTABLE, (character) => {
    if (keep.includes(character)) return character;
    const code = character.charCodeAt(0).toString(16);
    return code.length <= 2 ? `\\x${code.padStart(2, "0")}` : `\\u${code.padStart(4, "0")}`;
  });
}

/** Returns what was thrown as one line. */
export function oneLine(error: unknown): string {
  return new GptossError(error instanceof Error ? error.message : String(error)).message;
}

/** Says what failed before the words of what threw. */
export async function explained<T>(what: string, promise: Promise<T>): Promise<T> {
  try {
    return await promise;
  } catch (error) {
    throw error instanceof GptossError ? error : new GptossError(`${what}: ${oneLine(error)}`);
  }
}

export function check(
  holds: boolean,
  name: string,
  found: unknown,
  expected: string,
): asserts holds {
  if (!holds) throw new GptossError(`${name}: found ${shown(found)}, expected ${expected}`);
}

export function oneOf<T>(name: string, found: unknown, known: readonly T[]): T {
  check(known.includes(found as T), name, found, known.join(" or "));
  return found as T;
}

export function checkInteger(
  name: string,
  found: unknown,
  least: number,
  most = Number.MAX_SAFE_INTEGER,
): asserts found is number {
  const holds =
    Number.isSafeInteger(found) && (found as number) >= least && (found as number) <= most;
  check(holds, name, found, `an integer from ${least} to ${most}`);
}

/**
 * Checks that a value is an object with no keys but `known`; a misspelt option must not pass
 * unseen.
 */
export function checkOptions(name: string, found: unknown, known: readonly string[]): void {
  check(
    typeof found === "object" && found !== null && !Array.isArray(found),
    name,
    found,
    "an object",
  );
  for (const key of Object.keys(found)) oneOf(`${name}: its key`, key, known);
}

function shown(value: unknown): string {
  if (value === undefined || value === null) return "none";
  if (Array.isArray(value)) return `a list of ${value.length}`;
  if (typeof value === "object" || typeof value === "function" || typeof value === "symbol")
    return typeof value;
  if (value === "") return "an empty text";
  return cut(String(value), LONGEST_VALUE);
}

function cut(text: string, most: number): string {
  return text.length > most ? `${text.slice(0, most)}…` : text;
}
