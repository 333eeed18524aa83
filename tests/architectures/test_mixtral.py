"""Mixtral against transformers' MixtralForCausalLM, from checkpoints that transformers wrote."""

from pathlib import Path

import pytest
from transformers import MixtralConfig

from gptoss_onnx.reference.architectures.mixtral import MIXTRAL
from gptoss_onnx.reference.synthetic import config_of
from support.architecture_judge import Case
from support.refusals import refusal
from support.transformers_models import as_version_4

CASES = {
    "top-2 of 8": {},
    "top-1 of 3": {"num_local_experts": 3, "num_experts_per_tok": 1},
    "window 5": {"sliding_window": 5},
    "tied": {"tie_word_embeddings": True},
    "one kv head": {"num_key_value_heads": 1},
}

REFUSED = [
    ({"hidden_act": "gelu"}, "hidden_act: found 'gelu', expected 'silu'"),
    (
        {"num_experts_per_tok": 9},
        "num_experts_per_tok: found 9, expected at most num_local_experts = 8",
    ),
]


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_the_reference(changes: dict[str, object], tmp_path: Path) -> None:
    case = Case.write("mixtral", changes, tmp_path, sharded="num_key_value_heads" in changes)
    case.check_reference()
    as_version_4(tmp_path)
    case.check_reference()


def test_a_missing_theta_is_the_one_that_transformers_takes() -> None:
    document = {key: value for key, value in MIXTRAL.tiny.items() if key != "rope_theta"}
    rope = config_of(document).rope
    assert rope is not None
    assert rope.theta == MixtralConfig().rope_parameters["rope_theta"]


def test_packages(tmp_path: Path) -> None:
    case = Case.write("mixtral", {}, tmp_path / "checkpoint")
    case.check_package(tmp_path / "portable", "portable", "auto")
    case.check_package(tmp_path / "portable", "portable", "portable")
    case.check_package(tmp_path / "ort", "ort", "auto")


@pytest.mark.parametrize(("changes", "words"), REFUSED)
def test_what_is_refused(changes: dict[str, object], words: str) -> None:
    assert words in refusal("mixtral", changes)
