"""Qwen3-MoE against transformers' Qwen3MoeForCausalLM, from checkpoints that transformers wrote."""

from pathlib import Path

import pytest

from support.architecture_judge import Case
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
