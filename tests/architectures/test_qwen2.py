"""Qwen2 against transformers' Qwen2ForCausalLM, from checkpoints that transformers wrote."""

from pathlib import Path

import pytest

from support.architecture_judge import Case
from support.refusals import refusal
from support.transformers_models import as_version_4

CASES = {
    "late layers slide": {},
    "all layers slide": {"max_window_layers": 0},
    "a window that is off": {"use_sliding_window": False},
    "tied": {"tie_word_embeddings": True},
    "all heads": {"num_key_value_heads": 6},
    "one kv head": {"num_key_value_heads": 1},
}

REFUSED = [
    ({"hidden_act": "gelu"}, "hidden_act: found 'gelu', expected 'silu'"),
    ({"max_window_layers": -1}, "max_window_layers: found -1, expected an integer of at least 1"),
    (
        {"use_sliding_window": False, "layer_types": ["sliding_attention"] * 3},
        "expected 'full_attention' alone, since use_sliding_window is false",
    ),
    ({"use_sliding_window": "no"}, "use_sliding_window: found 'no', expected true or false"),
]


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_the_reference(changes: dict[str, object], tmp_path: Path) -> None:
    case = Case.write("qwen2", changes, tmp_path, sharded="num_key_value_heads" in changes)
    case.check_reference()
    as_version_4(tmp_path)
    case.check_reference()


def test_layers_that_slide_by_name(tmp_path: Path) -> None:
    kinds = ["sliding_attention", "full_attention", "full_attention"]
    Case.write("qwen2", {"layer_types": kinds}, tmp_path).check_reference()


def test_packages(tmp_path: Path) -> None:
    case = Case.write("qwen2", {}, tmp_path / "checkpoint")
    case.check_package(tmp_path / "portable", "portable", "auto")
    case.check_package(tmp_path / "portable", "portable", "portable")
    case.check_package(tmp_path / "ort", "ort", "auto")


@pytest.mark.parametrize(("changes", "words"), REFUSED)
def test_what_is_refused(changes: dict[str, object], words: str) -> None:
    assert words in refusal("qwen2", changes)
