import { check, checkInteger, oneOf } from "./errors.js";
import { isPlainName } from "./files.js";

const LONGEST_NAME = 256; // characters
const LONGEST_LIST = 1 << 20; // entries

/** Returns what a JSON value means, or throws; `name` is the value's in errors. */
export type Read<T> = (value: unknown, name: string) => T;

/** Reads a list of `least` to `most` entries. */
export function readList<T>(
  value: unknown,
  name: string,
  read: Read<T>,
  least = 0,
  most = LONGEST_LIST,
): T[] {
  const holds = Array.isArray(value) && value.length >= least && value.length <= most;
  check(
    holds,
    name,
    value,
    least === most ? `a list of ${least}` : `a list of ${least} to ${most}`,
  );
  return value.map((entry, i) => read(entry, `${name}[${i}]`));
}

/** A JSON object whose fields are checked as they are read; `where` names it in errors. */
export class Fields {
  // A map: no key is inherited, not even `constructor`.
  private readonly fields: ReadonlyMap<string, unknown>;

  constructor(
    document: unknown,
    private readonly where: string,
  ) {
    const isObject = typeof document === "object" && document !== null && !Array.isArray(document);
    check(isObject, where, document, "an object");
    this.fields = new Map(Object.entries(document as object));
  }

  /** Returns a field as it is, undefined where there is none; null counts as none. */
  get(key: string): unknown {
    return this.fields.get(key) ?? undefined;
  }

  integer(key: string, least: number, most: number): number {
    const value = this.get(key);
    checkInteger(this.name(key), value, least, most);
    return value;
  }

  /** Returns a text without control characters, of which names are made. */
  text(key: string): string {
    const value = this.get(key);
    const holds =
      typeof value === "string" && value.length <= LONGEST_NAME && !/[\x00-\x1f\x7f]/.test(value);
    check(holds, this.name(key), value, `a text of at most ${LONGEST_NAME} printable characters`);
    return value;
  }

  oneOf<T extends string | number>(key: string, known: readonly T[]): T {
    return oneOf(this.name(key), this.get(key), known);
  }

  /** Returns the name of a file directly in the package folder. */
  fileName(key: string): string {
    const value = this.text(key);
    check(
      isPlainName(value),
      this.name(key),
      value,
      "the plain name of a file in the package folder",
    );
    return value;
  }

  object(key: string): Fields {
    return new Fields(this.get(key), this.name(key));
  }

  list<T>(key: string, read: Read<T>, least?: number, most?: number): T[] {
    return readList(this.get(key), this.name(key), read, least, most);
  }

  objects<T>(key: string, read: (entry: Fields) => T, least = 0, most?: number): T[] {
    return this.list(key, (entry, name) => read(new Fields(entry, name)), least, most);
  }

  /** Returns token ids: an integer, a list of them, or nothing. */
  tokenIds(key: string): number[] | undefined {
    const value = this.get(key);
    if (value === undefined) return undefined;
    const ids: unknown[] = Array.isArray(value) ? value : [value];
    return ids.map((id) => {
      checkInteger(`${this.name(key)}: a token id`, id, 0);
      return id;
    });
  }

  name(key: string): string {
    return `${this.where}: ${key}`;
  }
}
