"""Mistral against transformers' MistralForCausalLM, from checkpoints that transformers wrote."""

from pathlib import Path

import pytest

from support.architecture_judge import Case
from support.refusals import refusal
from support.transformers_models import as_version_4

CASES = {
    "window 5": {},
    "no window": {"sliding_window": None},
    "tied": {"tie_word_embeddings": True},
    "all heads": {"num_key_value_heads": 4},
    "one kv head": {"num_key_value_heads": 1},
}

REFUSED = [
    ({"hidden_act": "gelu"}, "hidden_act: found 'gelu', expected 'silu'"),
    (
        {"sliding_window": 0},
        "sliding_window: found 0, expected an integer of at least 1, or null for no window",
    ),
    ({"layer_types": ["full_attention"] * 3}, "all layers of Mistral have the same window"),
]


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_the_reference(changes: dict[str, object], tmp_path: Path) -> None:
    case = Case.write("mistral", changes, tmp_path, sharded="num_key_value_heads" in changes)
    case.check_reference()
    as_version_4(tmp_path)
    case.check_reference()


def test_packages(tmp_path: Path) -> None:
    case = Case.write("mistral", {}, tmp_path / "checkpoint")
    case.check_package(tmp_path / "portable", "portable", "auto")
    case.check_package(tmp_path / "portable", "portable", "portable")
    case.check_package(tmp_path / "ort", "ort", "auto")


@pytest.mark.parametrize(("changes", "words"), REFUSED)
def test_what_is_refused(changes: dict[str, object], words: str) -> None:
    assert words in refusal("mistral", changes)
