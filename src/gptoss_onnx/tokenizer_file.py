"""Load a tokenizer.json of a stranger: in one line where it is damaged, and without the memory that
it may ask for.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tokenizers

from gptoss_onnx.errors import GptOssError
from gptoss_onnx.json_text import parse_json
from gptoss_onnx.rust_panics import foreign_errors, quiet_panics

MOST_GROWTH = 100  # letters that may become of one; the published tokenizer's stay what they are
MOST_ADDED = 10_000  # letters that may come before a text
_PROBE = "A probe: it's 3 o'clock,\n\té 你好 😀 <|probe|>  "


def load_tokenizer(
    content: bytes, path: Path, advice: str, error: type[GptOssError]
) -> tokenizers.Tokenizer:
    """Return the tokenizer in a tokenizer.json, after it has shown that it encodes and decodes.

    It neither pads nor cuts what it encodes: these are settings of a training, and Hugging Face too
    leaves them out.

    Args:
        content: of the file.
        path: of the file, for messages.
        advice: what to do about a damaged one.
        error: what is raised for a file that is no tokenizer, or one that makes much of little.
    """
    with foreign_errors(f"{path}: not a tokenizer", advice, error), quiet_panics():
        backend = tokenizers.Tokenizer.from_buffer(content)
        backend.no_truncation()
        backend.no_padding()  # to a billion tokens, if the file says so
        for part in (backend.normalizer, backend.post_processor, backend.decoder):
            _refuse_growth(part, path, error)
        # Some damage shows only at work; better here, where it can be told in one line.
        backend.decode(backend.encode(_PROBE).ids)
        return backend


def _refuse_growth(part: Any, path: Path, error: type[GptOssError]) -> None:
    """Refuse a part of a tokenizer whose steps, one after the other, make a text many times as
    long.

    Forty steps that write two letters for one make a terabyte of one letter.
    """
    if part is None:
        return
    growth, added = 1, 0
    for step in _steps(parse_json(part.__getstate__(), str(path), error)):
        growth *= _growth(step)
        added = added * _growth(step) + _added(step)
        if growth > MOST_GROWTH or added > MOST_ADDED:
            raise error(
                f"{path}: not a tokenizer: it makes more than {MOST_GROWTH} letters or tokens of "
                "one, or puts "
                f"more than {MOST_ADDED} before a text"
            )


def _steps(state: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the steps of a part in their order, those in sequences one by one."""
    if not isinstance(state, Mapping):
        return
    for key in ("normalizers", "processors", "decoders"):
        for inner in state.get(key) or ():
            yield from _steps(inner)
    yield state


def _growth(step: Mapping[str, Any]) -> int:
    """Return how many letters a step can make of one, or how often a template repeats a text."""
    if step.get("type") == "Replace":
        pattern = step.get("pattern") or {}
        text = pattern.get("String")
        content = len(step.get("content") or "")
        # A regular expression may match nothing, before every letter.
        return max(1, -(-content // len(text)) if text else content + 1)
    if step.get("type") == "TemplateProcessing":
        return max(1, sum("Sequence" in piece for piece in step.get("single") or ()))
    return 1


def _added(step: Mapping[str, Any]) -> int:
    return len(step.get("prepend") or "") if step.get("type") == "Prepend" else 0
