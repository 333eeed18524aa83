"""Qwen3-MoE against transformers' Qwen3MoeForCausalLM, from checkpoints that transformers wrote."""

from pathlib import Path

import pytest

from support.architecture_judge import Case
from support.refusals import refusal
from support.transformers_models import as_version_4

CASES = {
    "every other layer": {},
    "every layer, shares of one": {"decoder_sparse_step": 1, "norm_topk_prob": True},
    "all but the first": {"decoder_sparse_step": 1, "mlp_only_layers": [0]},
    "window 5": {"use_sliding_window": True, "sliding_window": 5},
    "bias": {"attention_bias": True},
    "tied": {"tie_word_embeddings": True},
    "one kv head": {"num_key_value_heads": 1},
}

REFUSED = [
    ({"hidden_act": "gelu"}, "hidden_act: found 'gelu', expected 'silu'"),
    ({"mlp_only_layers": 1}, "mlp_only_layers: found 1, expected a list of layers"),
    ({"decoder_sparse_step": 0}, "decoder_sparse_step: found 0, expected an integer of at least 1"),
    ({"num_experts_per_tok": 9}, "num_experts_per_tok: found 9, expected at most num_experts = 8"),
    (
        {"moe_intermediate_size": 0},
        "moe_intermediate_size: found 0, expected an integer of at least 1",
    ),
]


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_the_reference(changes: dict[str, object], tmp_path: Path) -> None:
    case = Case.write("qwen3_moe", changes, tmp_path, sharded="num_key_value_heads" in changes)
    case.check_reference()
    as_version_4(tmp_path)
    case.check_reference()


def test_packages(tmp_path: Path) -> None:
    case = Case.write("qwen3_moe", {}, tmp_path / "checkpoint")
    case.check_package(tmp_path / "portable", "portable", "auto")
    case.check_package(tmp_path / "portable", "portable", "portable")
    case.check_package(tmp_path / "ort", "ort", "auto")


@pytest.mark.parametrize(("changes", "words"), REFUSED)
def test_what_is_refused(changes: dict[str, object], words: str) -> None:
    assert words in refusal("qwen3_moe", changes)
