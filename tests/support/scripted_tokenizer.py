"""The small harmony tokenizer with letters of its own for scripts: each is one token, wherever a
text has it.

A package of `scripted_package` is asked for script k by the letter `letter(k)` at the end of a
message. The letters are Chinese: no word of ASCII holds one, and a byte-level tokenizer sees three
bytes, so that two merges give the token.
"""

import json
from pathlib import Path

from support.harmony_tokenizer import TEMPLATE, write_harmony_tokenizer

MOST_LETTERS = 256
_FIRST = 0x4E00  # 一; the letters share their first byte, and each 64 of them their second
_WORDS = 330  # tokens of the small tokenizer


def letter(script: int) -> str:
    """Return the letter that asks for a script, 0 to 255."""
    assert 0 <= script < MOST_LETTERS
    return chr(_FIRST + script)


def letter_token(script: int) -> int:
    """Return the token of a letter; those of all letters follow each other."""
    return _WORDS + script


def vocabulary(scripts: int) -> int:
    """Return how many tokens the tokenizer with letters for so many scripts has."""
    return _WORDS + scripts + len(_pairs(scripts))


def write_scripted_tokenizer(folder: Path, scripts: int, template: str = TEMPLATE) -> Path:
    """Write the files of the tokenizer, with letters for so many scripts; returns the folder."""
    assert 0 < scripts <= MOST_LETTERS
    write_harmony_tokenizer(folder, template, _WORDS)
    path = folder / "tokenizer.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    model = document["model"]
    assert len(model["vocab"]) == _WORDS
    known = {word for word in model["vocab"] if len(word) > 1}
    for script in range(scripts):
        model["vocab"][_visible(letter(script))] = letter_token(script)
    for place, pair in enumerate(_pairs(scripts)):
        assert pair not in known
        model["vocab"][pair] = _WORDS + scripts + place
    merges = [[pair[0], pair[1]] for pair in _pairs(scripts)]
    merges += [[word[:2], word[2]] for word in map(_visible, map(letter, range(scripts)))]
    model["merges"] = merges + model["merges"]
    path.write_text(json.dumps(document), encoding="utf-8")
    return folder


def _pairs(scripts: int) -> list[str]:
    """Return what the letters begin with, two bytes each."""
    return list(dict.fromkeys(_visible(letter(script))[:2] for script in range(scripts)))


def _visible(text: str) -> str:
    """Return the bytes of a text as byte-level tokenizers spell them."""
    # GPT-2's table: a byte that is no visible letter of Latin-1 stands at 256 and above.
    hidden = [*range(33), *range(127, 161), 173]
    return "".join(chr(256 + hidden.index(b)) if b in hidden else chr(b) for b in text.encode())
