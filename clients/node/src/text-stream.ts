/** What a stream of text needs of a tokenizer; special tokens show nothing. */
export interface Decoder {
  /** Returns the text of token ids, U+FFFD for bytes that are no UTF-8. */
  decode(ids: readonly number[]): Promise<string> | string;
}

const REPLACEMENT = "\ufffd";
// Bytes of UTF-8, and so the most tokens that one character is spread over.
const LONGEST_CHARACTER = 4;
const MOST_PENDING = 8; // tokens whose text is not certain; a character is not as long

/**
 * Text of one sequence, token by token: what `push` and `finish` return is the text up to a stop.
 * Each token costs the decoding of a few tokens, however many came before it.
 *
 * A byte-level tokenizer splits characters over tokens; decoded too early they read U+FFFD, so such
 * an end is held back until later tokens settle it. So is an end that a stop may begin with.
 */
export class TextStream {
  /** A stop has appeared; it and what follows is not part of the text. */
  stopped = false;
  // The tokens that are decoded together: first those whose text was given, because some decoders
  // treat a beginning differently (they strip its space); then those whose text is not certain.
  private window: number[] = [];
  private context = 0; // how many of them are of the first kind
  private shown = ""; // the text of the window
  private given = 0; // characters of it that were returned
  private held = ""; // certain, but perhaps the beginning of a stop

  /** `stops` are texts that end the stream. */
  constructor(
    private readonly decoder: Decoder,
    private readonly stops: readonly string[] = [],
  ) {}

  /** Adds a token and returns the text that is certain by now, possibly none. */
  async push(token: number): Promise<string> {
    if (this.stopped) return "";
    const text = await this.decoder.decode([...this.window, token]);
    const showsNothing = this.window.length > 0 && text === this.shown;
    // After half a character, a token that adds nothing to see may still add to the character.
    if (
      showsNothing &&
      (!text.endsWith(REPLACEMENT) || (await this.decoder.decode([token])) === "")
    )
      return "";
    this.window.push(token);
    this.shown = text;
    return this.release(await this.settle());
  }

  /** Returns what was held back; a character left incomplete reads U+FFFD. */
  async finish(): Promise<string> {
    if (this.stopped) return "";
    const text = this.release(this.shown.slice(this.given)) + this.held;
    this.given = this.shown.length;
    this.held = "";
    return text;
  }

  /**
   * Returns the new text that no later token can change, and forgets the tokens that are done with.
   */
  private async settle(): Promise<string> {
    const certain = certainLength(this.shown);
    const fresh = this.shown.slice(this.given, certain);
    this.given = Math.max(this.given, certain);
    if (certain === this.shown.length && this.window.length > this.context) {
      await this.forget(this.window.length);
    } else if (this.window.length - this.context > MOST_PENDING) {
      return fresh + (await this.settleBytes());
    }
    return fresh;
  }

  /**
   * Splits off the last character that may still be completed; bytes before it that are no text
   * stay none.
   */
  private async settleBytes(): Promise<string> {
    for (let count = 1; count <= LONGEST_CHARACTER; count += 1) {
      const end = this.window.length - count;
      const head = await this.decoder.decode(this.window.slice(0, end));
      const tail = await this.decoder.decode(this.window.slice(end));
      if (head + tail !== this.shown) continue; // a character lies across this place
      const fresh = this.shown.slice(this.given, head.length);
      this.given = Math.max(this.given, head.length);
      await this.forget(end);
      return fresh;
    }
    const fresh = this.shown.slice(this.given);
    this.given = this.shown.length;
    await this.forget(this.window.length);
    return fresh;
  }

  /** Makes the tokens before `end` the context, and forgets the context they had. */
  private async forget(end: number): Promise<void> {
    const givenAfter = this.given - (await this.textUpTo(end)).length;
    const tail = this.window.slice(end);
    this.window = this.window.slice(this.context, end);
    this.context = this.window.length;
    const context = await this.decoder.decode(this.window);
    this.window.push(...tail);
    this.shown = tail.length === 0 ? context : await this.decoder.decode(this.window);
    this.given = context.length + givenAfter;
  }

  private textUpTo(end: number): Promise<string> | string {
    return end === this.window.length ? this.shown : this.decoder.decode(this.window.slice(0, end));
  }

  /** Returns what of the held and the new text can be given, and stops at the first stop. */
  private release(text: string): string {
    this.held += text;
    const places = this.stops.map((stop) => this.held.indexOf(stop)).filter((place) => place >= 0);
    let end = this.held.length - Math.max(0, ...this.stops.map((stop) => overlap(this.held, stop)));
    if (places.length > 0) {
      this.stopped = true;
      end = Math.min(...places);
    }
    const released = this.held.slice(0, end);
    this.held = this.stopped ? "" : this.held.slice(end);
    return released;
  }
}

/**
 * Returns how many characters of a text no later token can change: all but those of an incomplete
 * end.
 */
function certainLength(text: string): number {
  let end = text.length;
  while (end > 0 && text.length - end < LONGEST_CHARACTER - 1 && text[end - 1] === REPLACEMENT)
    end -= 1;
  return end;
}

/** Returns how many characters at the end of a text are a beginning of `stop`. */
function overlap(text: string, stop: string): number {
  let size = Math.min(text.length, stop.length - 1);
  while (size > 0 && !text.endsWith(stop.slice(0, size))) size -= 1;
  return size;
}
