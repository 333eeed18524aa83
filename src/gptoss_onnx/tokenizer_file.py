"""Load a stranger's tokenizer.json, so that what is wrong with it is one line and takes neither time nor memory."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import tokenizers

from gptoss_onnx.errors import GptOssError
from gptoss_onnx.rust_panics import foreign_errors, quiet_panics

GROWTH_LIMIT = 16  # how many times longer its rules may make a text; the published tokenizer has none
_REPLACE = "Replace"
_PROBE = "A probe: it's 3 o'clock,\n\té 你好 😀 <|probe|>  "


def load_tokenizer(content: bytes, where: str, advice: str, error: type[GptOssError]) -> tokenizers.Tokenizer:
    """Return the tokenizer, which neither truncates nor pads, after it has encoded and decoded a text.

    A file may carry settings of the training run; Hugging Face too leaves them out unless asked. `where` names
    the file and `advice` says what to do, for messages. Raises `error` for a file that is no tokenizer or
    does not work, and for rules that make texts many times longer: each replaces a letter by two, forty times
    over.
    """
    with foreign_errors(f"{where}: not a tokenizer", advice, error), quiet_panics():
        backend = tokenizers.Tokenizer.from_buffer(content)
        backend.no_truncation()
        backend.no_padding()
        for name in ("normalizer", "decoder"):
            if _growth_of(getattr(backend, name)) > GROWTH_LIMIT:
                raise error(
                    f"{where}: not a tokenizer: its {name} makes texts more than {GROWTH_LIMIT} times longer; {advice}"
                )
        # Some damage shows only at work; better here, where it can be told in one line.
        backend.decode(backend.encode(_PROBE).ids)
        return backend


def _growth_of(part: Any) -> float:
    """Return how many times longer a part of a tokenizer makes a text at most."""
    growth = 1.0
    for rule in () if part is None else _replacements(json.loads(part.__getstate__())):
        growth = min(growth * _growth(rule), 2.0 * GROWTH_LIMIT)
    return growth


def _replacements(value: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the rules that replace text, also those in sequences inside of each other."""
    if isinstance(value, dict):
        if value.get("type") == _REPLACE:
            yield value
        for entry in value.values():
            yield from _replacements(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from _replacements(entry)


def _growth(rule: Mapping[str, Any]) -> float:
    """Return how many times longer a rule makes a text at most."""
    content, pattern = rule.get("content"), rule.get("pattern")
    length = len(content) if isinstance(content, str) else 0
    text = pattern.get("String") if isinstance(pattern, dict) else None
    if isinstance(text, str) and text:
        return max(1.0, length / len(text))
    return float(length + 1)  # an empty pattern, and perhaps an expression, matches between any two letters
