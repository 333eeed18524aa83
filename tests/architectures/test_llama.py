"""Llama against transformers' LlamaForCausalLM, from checkpoints that transformers wrote."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from support.architecture_judge import Case
from support.refusals import refusal
from support.transformers_models import Judged, as_version_4

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 32}
YARN = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 32}
CASES = {
    "as is": {},
    "no bias": {"attention_bias": False, "mlp_bias": False},
    "tied": {"tie_word_embeddings": True},
    "all heads": {"num_key_value_heads": 4},
    "one kv head": {"num_key_value_heads": 1},
    "head dim of the width": {"head_dim": None},
    "linear": {"rope_scaling": {"rope_type": "linear", "factor": 4.0}},
    "llama3": {"rope_scaling": LLAMA3 | {"low_freq_factor": 1.0, "high_freq_factor": 4.0}},
    "yarn": {"rope_scaling": YARN},
}

REFUSED = [
    ({"hidden_act": "gelu"}, "hidden_act: found 'gelu', expected 'silu'"),
    (
        {"num_key_value_heads": 3},
        "num_attention_heads: found 4, expected a multiple of num_key_value_heads = 3",
    ),
    (
        {"head_dim": None, "hidden_size": 66},
        "hidden_size: found 66, expected a multiple of num_attention_heads = 4",
    ),
    (
        {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
        "rope_scaling.rope_type: found 'dynamic'",
    ),
    (
        {"architectures": ["LlamaForSequenceClassification"]},
        "architectures: found ['LlamaForSequenceClassification'], expected ['LlamaForCausalLM']",
    ),
]


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_the_reference(changes: dict[str, object], tmp_path: Path) -> None:
    case = Case.write("llama", changes, tmp_path, sharded="num_key_value_heads" in changes)
    case.check_reference()
    as_version_4(tmp_path)
    case.check_reference()


def test_a_stored_head_counts_although_config_json_says_tied(tmp_path: Path) -> None:
    folder = Case.write("llama", {}, tmp_path).judged.folder
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tie_word_embeddings": True}))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    Case(Judged(model.eval(), folder, model.config.vocab_size)).check_reference()


def test_packages(tmp_path: Path) -> None:
    case = Case.write("llama", {"rope_scaling": YARN}, tmp_path / "checkpoint")
    case.check_package(tmp_path / "portable", "portable", "auto")
    case.check_package(tmp_path / "portable", "portable", "portable")
    case.check_package(tmp_path / "ort", "ort", "auto")


@pytest.mark.parametrize(("changes", "words"), REFUSED)
def test_what_is_refused(changes: dict[str, object], words: str) -> None:
    assert words in refusal("llama", changes)
