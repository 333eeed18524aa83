"""Which tokenizers have harmony's control tokens."""

from pathlib import Path

import pytest
import tokenizers

from gptoss_onnx.errors import InputError
from gptoss_onnx.harmony_tokens import HarmonyTokens, harmony_stop_tokens
from gptoss_onnx.runtime import HarmonyParser, Tokenizer
from support.harmony_tokenizer import SPECIAL, write_harmony_tokenizer


def test_tokenizers_without_harmony_are_told_apart() -> None:
    ids = {text: place for place, text in enumerate(SPECIAL)}
    assert harmony_stop_tokens(ids) == (ids["<|return|>"], ids["<|call|>"])
    assert HarmonyTokens.of(ids) is not None
    demo = {text: id_ for text, id_ in ids.items() if text not in ("<|call|>", "<|constrain|>")}
    assert harmony_stop_tokens(demo) == (ids["<|return|>"],)
    for needed in ("<|start|>", "<|end|>", "<|message|>", "<|channel|>"):
        rest = {text: id_ for text, id_ in ids.items() if text != needed}
        assert HarmonyTokens.of(rest) is None
        assert harmony_stop_tokens(rest) == ()


def test_a_tokenizer_without_harmony_is_refused() -> None:
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, unk_token="a"))
    with pytest.raises(InputError, match="tokenizer: found none of harmony's control tokens"):
        HarmonyParser(Tokenizer(backend, Path()))


def test_a_folder_is_enough(tmp_path: Path) -> None:
    opened = Tokenizer.open(write_harmony_tokenizer(tmp_path))
    assert opened.harmony is not None
    assert opened.special_tokens["<|call|>"] == SPECIAL.index("<|call|>")
    assert opened.harmony_stop_tokens == (SPECIAL.index("<|return|>"), SPECIAL.index("<|call|>"))
