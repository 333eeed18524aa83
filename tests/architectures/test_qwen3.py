"""Qwen3 against transformers' Qwen3ForCausalLM, from checkpoints that transformers wrote."""

from pathlib import Path

import pytest

from support.architecture_judge import Case
from support.refusals import refusal
from support.transformers_models import as_version_4

CASES = {
    "late layers slide": {},
    "a window that is off": {"use_sliding_window": False},
    "bias": {"attention_bias": True},
    "tied": {"tie_word_embeddings": True},
    "one kv head": {"num_key_value_heads": 1},
}

REFUSED = [
    ({"hidden_act": "gelu"}, "hidden_act: found 'gelu', expected 'silu'"),
    (
        {"layer_types": ["full_attention"]},
        "layer_types: found 1 entries, expected num_hidden_layers = 3",
    ),
    ({"head_dim": 33}, "head_dim: found 33, expected an even number"),
]


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_the_reference(changes: dict[str, object], tmp_path: Path) -> None:
    case = Case.write("qwen3", changes, tmp_path, sharded="num_key_value_heads" in changes)
    case.check_reference()
    as_version_4(tmp_path)
    case.check_reference()


def test_packages(tmp_path: Path) -> None:
    case = Case.write("qwen3", {}, tmp_path / "checkpoint")
    case.check_package(tmp_path / "portable", "portable", "auto")
    case.check_package(tmp_path / "portable", "portable", "portable")
    case.check_package(tmp_path / "ort", "ort", "auto")


@pytest.mark.parametrize(("changes", "words"), REFUSED)
def test_what_is_refused(changes: dict[str, object], words: str) -> None:
    assert words in refusal("qwen3", changes)
