/** TextStream: turns tokens into text as they come, never half a character. */

const LONGEST_INCOMPLETE = 3; // bytes of a UTF-8 sequence that still lacks its last

export class TextStream {
  /** @type {number[]} */
  #ids = [];
  // Tokens before `#context` are done with; those from there to `#begin` are decoded again, because some decoders treat
  // a beginning differently; of the text of the rest, `#sent` characters were given.
  #context = 0;
  #begin = 0;
  #sent = 0;

  /** @param {(ids: number[]) => string} decode  U+FFFD for bytes that are no UTF-8 */
  constructor(decode) {
    this.decode = decode;
  }

  /** Add a token and return the text that no later token can change, possibly none. @param {number} token */
  push(token) {
    this.#ids.push(token);
    const fresh = this.#fresh();
    let end = fresh.length;
    while (end > 0 && fresh.length - end < LONGEST_INCOMPLETE && fresh[end - 1] === "\ufffd") end--;
    const text = fresh.slice(this.#sent, end);
    this.#sent = Math.max(this.#sent, end);
    if (fresh && end === fresh.length) [this.#context, this.#begin, this.#sent] = [this.#begin, this.#ids.length, 0];
    return text;
  }

  /** Return what was held back; a character left incomplete reads U+FFFD. */
  finish() {
    return this.#fresh().slice(this.#sent);
  }

  /** Return the text of the tokens from `#begin` on. */
  #fresh() {
    const context = this.decode(this.#ids.slice(this.#context, this.#begin));
    return this.decode(this.#ids.slice(this.#context)).slice(context.length);
  }
}
