"""Adapters of PEFT, added by this project, against PEFT's own merge_and_unload."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from gptoss_onnx.reference import open_checkpoint
from support.architecture_judge import Case
from support.peft_adapters import Base

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]

# model type, changes to config.json, settings of the adapter
CASES: Mapping[str, tuple[str, Mapping[str, Any], Mapping[str, Any]]] = {
    "llama attention": ("llama", {}, {"target_modules": ATTENTION}),
    "llama everything": (
        "llama",
        {},
        {"target_modules": [*ATTENTION, "gate_proj", "up_proj", "down_proj", "lm_head"]},
    ),
    "llama embedding": ("llama", {}, {"target_modules": ["embed_tokens", "q_proj"]}),
    "rank-stabilised": ("llama", {}, {"target_modules": ATTENTION, "use_rslora": True}),
    "patterns": (
        "llama",
        {},
        {
            "target_modules": ATTENTION,
            "rank_pattern": {"q_proj": 2, r"layers\.[01]\.self_attn\.o_proj": 8},
            "alpha_pattern": {"layers.1.self_attn.q_proj": 32, "v_proj": 3},
        },
    ),
    "added biases": ("llama", {}, {"target_modules": ["q_proj", "up_proj"], "lora_bias": True}),
    "trained biases": ("llama", {}, {"target_modules": ["q_proj"], "bias": "all"}),
    "biases of targets": ("gpt_oss", {}, {"target_modules": ["o_proj"], "bias": "lora_only"}),
    "DoRA": ("llama", {}, {"target_modules": ["q_proj", "down_proj"], "use_dora": True}),
    "a head in full": (
        "llama",
        {},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "norm"]},
    ),
    "tied head": ("llama", {"tie_word_embeddings": True}, {"target_modules": ["lm_head"]}),
    "tied embedding": (
        "llama",
        {"tie_word_embeddings": True},
        {"target_modules": ["embed_tokens", "v_proj"]},
    ),
    "tied, head in full": (
        "llama",
        {"tie_word_embeddings": True},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    ),
    "tied, embedding in full": (
        "llama",
        {"tie_word_embeddings": True},
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
    ),
    "gpt-oss": (
        "gpt_oss",
        {},
        {
            "target_modules": ATTENTION,
            "target_parameters": ["mlp.router.weight", *EXPERTS],
        },
    ),
    "gpt-oss gate and up": (
        "gpt_oss",
        {},
        {"target_modules": [], "target_parameters": EXPERTS[:1]},
    ),
    "gpt-oss down": (
        "gpt_oss",
        {},
        {"target_modules": [], "target_parameters": EXPERTS[1:]},
    ),
    "gpt-oss layers": (
        "gpt_oss",
        {},
        {
            "target_modules": ATTENTION,
            "layers_to_transform": [1, 3],
            "target_parameters": [f"layers.2.{name}" for name in EXPERTS],
            "rank_pattern": {"experts.down_proj": 2},
            "alpha_pattern": {"experts.gate_up_proj": 5},
        },
    ),
    "mixtral": (
        "mixtral",
        {},
        {"target_modules": ["q_proj"], "target_parameters": ["mlp.gate.weight", *EXPERTS]},
    ),
    "qwen3_moe": (
        "qwen3_moe",
        {},
        {
            "target_modules": [*ATTENTION, "gate_proj", "up_proj"],
            "target_parameters": ["mlp.gate.weight", *EXPERTS],
        },
    ),
    "qwen2": ("qwen2", {}, {"target_modules": [*ATTENTION, "down_proj"]}),
    "gpt2": (
        "gpt2",
        {},
        {"target_modules": ["c_attn", "c_proj", "c_fc", "wte"], "fan_in_fan_out": True},
    ),
    "bloom": (
        "bloom",
        {},
        {"target_modules": ["query_key_value", "dense", "dense_h_to_4h"], "lora_bias": True},
    ),
}


@pytest.mark.parametrize(("model_type", "changes", "settings"), CASES.values(), ids=CASES)
def test_the_reference_is_what_peft_merges(
    model_type: str, changes: dict[str, Any], settings: dict[str, Any], tmp_path: Path
) -> None:
    base = Base.write(model_type, changes, tmp_path / "base")
    adapter = base.adapter(tmp_path / "adapter", **settings)
    case = Case(base.merged([adapter]))
    assert (case.logits - base.judged.prefill(case.tokens)).abs().max() > 100 * case.tolerance
    merged = case.judged.model.state_dict()
    with open_checkpoint(base.folder, adapters=[adapter]) as checkpoint:
        for name, parameter in checkpoint.parameters.items():
            found, expected = checkpoint.load_parameter(name).float(), merged.get(parameter.name)
            if expected is not None and "use_dora" not in settings:
                assert torch.equal(found, expected), name
    case.check_reference([adapter])
