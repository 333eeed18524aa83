"""TokenBytes: the bytes of each token, which the text of it alone does not always show."""

import functools
import re

from gptoss_onnx.runtime.text import Tokenizer
from gptoss_onnx.runtime.text_stream import REPLACEMENT

_KEPT = 50_000  # tokens whose bytes are kept; those of logprobs come again and again
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


class TokenBytes:
    """Bytes and text of tokens, as logprobs name them; any thread may ask."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._special = {id_: text for text, id_ in tokenizer.special_tokens.items()}
        self.bytes = functools.lru_cache(_KEPT)(self._bytes)

    def text(self, token: int) -> str:
        """Return a token's text, U+FFFD for bytes that are no character by themselves."""
        return self.bytes(token).decode("utf-8", "replace")

    def _bytes(self, token: int) -> bytes:
        """Return a token's bytes, a special token's spelling; none for an id that no token has.

        A token that holds parts of characters decodes to U+FFFD, but its spelling in the vocabulary
        shows its bytes: one as `<0x0A>`, or each as a letter.
        """
        if token in self._special:
            return self._special[token].encode()
        spelling = self._tokenizer.spelling(token)
        if spelling is None:
            return b""
        if byte := _BYTE.fullmatch(spelling):
            return bytes.fromhex(byte[1])
        # Behind another, because some decoders strip the first space of a text.
        text = self._tokenizer.decode([token, token])[len(self._tokenizer.decode([token])) :]
        if REPLACEMENT in text and all(letter in _letters() for letter in spelling):
            return bytes(_letters()[letter] for letter in spelling)
        return text.encode()


@functools.cache
def _letters() -> dict[str, int]:
    """Return the byte that each letter of a byte-level vocabulary stands for.

    Bytes that are visible in Latin-1 stand for themselves, and the others for the letters from
    U+0100 on, in order: https://github.com/openai/gpt-2/blob/master/src/encoder.py.
    """
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    letters = {chr(byte): byte for byte in visible}
    hidden = [byte for byte in range(256) if byte not in visible]
    return letters | {chr(0x100 + place): byte for place, byte in enumerate(hidden)}
