"""Configuration and rotary frequencies against the published file and against transformers."""

import copy
import dataclasses
import json
from typing import Any

import pytest
from transformers import GptOssConfig

from gptoss_onnx.errors import CheckpointError
from gptoss_onnx.reference import DecoderConfig, RopeConfig
from gptoss_onnx.reference.architecture import StoredNames
from gptoss_onnx.reference.checkpoint import read_config
from gptoss_onnx.reference.config import (
    AttentionConfig,
    ExpertsConfig,
    LayerConfig,
    NormConfig,
)
from support.gpt_oss_config import MISSING, PUBLISHED, YARN, changed, read, with_yarn


def test_published_file_gives_its_values() -> None:
    attention = AttentionConfig(
        heads=64,
        kv_heads=8,
        head_dim=64,
        projections="separate",
        bias=True,
        output_bias=True,
        transposed=False,
        sinks=True,
        qk_norm=False,
        window=128,
        sink_tokens=0,
        sink_bias=0.0,
        rope=RopeConfig(150000.0, "yarn", 64, False, 32.0, 32.0, 1.0, 4096, False, None),
        alibi=False,
        scale=0.125,
    )
    experts = ExpertsConfig(
        count=32,
        top_k=4,
        width=2880,
        activation="swiglu",
        alpha=1.702,
        limit=7.0,
        beta=1.0,
        normalize=True,
        router_bias=True,
        bias=True,
        storage="mxfp4",
        interleaved=True,
    )
    sliding = LayerConfig(attention, experts)
    full = LayerConfig(dataclasses.replace(attention, window=0), experts)
    assert read(PUBLISHED) == DecoderConfig(
        model_type="gpt_oss",
        vocab_size=201088,
        hidden_size=2880,
        longest=131072,
        norm=NormConfig("rms", 1e-5),
        placement="pre",
        embedding_norm=False,
        final_norm=True,
        positions=None,
        tied=False,
        layers=(sliding, full) * 2,
    )


def test_the_stored_tensors_say_whether_experts_are_packed() -> None:
    """transformers keeps quantization_config in memory when it has dequantized the experts."""
    stem = "model.layers.0.mlp.experts.gate_up_proj"

    def storage(document: dict[str, Any], name: str) -> str:
        config = read_config(document, StoredNames([name]), "config.json")[2]
        return config.layers[0].feed_forward.storage

    plain = changed(quantization_config=MISSING)
    assert storage(PUBLISHED, f"{stem}_blocks") == storage(plain, f"{stem}_blocks") == "mxfp4"
    assert storage(PUBLISHED, stem) == storage(plain, stem) == "columns"
    assert storage(PUBLISHED, "x") == "mxfp4"
    assert storage(plain, "x") == "columns"


@pytest.mark.parametrize(
    "document",
    [
        PUBLISHED,
        with_yarn(attention_factor=1.25),
        changed(rope_scaling={"rope_type": "default"}),
        changed(layer_types=["full_attention"] * 4, sliding_window=None),
        changed(swiglu_alpha=1.5, tie_word_embeddings=True, attention_bias=False),
    ],
)
def test_the_keys_that_were_read_give_the_same_configuration(document: dict[str, Any]) -> None:
    """They are what a manifest keeps of a config.json."""
    _, fields, config = read_config(document, StoredNames([]), "config.json")
    kept = json.loads(json.dumps(fields.read))
    assert read(kept) == config
    assert "router_aux_loss_coef" not in kept


def test_transformers_5_spelling_gives_the_same() -> None:
    document = GptOssConfig(**copy.deepcopy(PUBLISHED)).to_dict()
    assert "rope_parameters" in document
    assert "rope_scaling" not in document
    assert read(document) == read(PUBLISHED)


def test_missing_layer_types_alternate_as_in_transformers() -> None:
    document = changed(layer_types=MISSING, num_hidden_layers=5)
    windows = [layer.attention.window for layer in read(document).layers]
    theirs = GptOssConfig(**copy.deepcopy(document)).layer_types
    assert windows == [128 if kind == "sliding_attention" else 0 for kind in theirs]


def test_alpha_is_read_where_it_is_given() -> None:
    assert read(changed(swiglu_alpha=1.703125)).layers[0].feed_forward.alpha == 1.703125
    limit = read(changed(swiglu_limit=MISSING)).layers[0].feed_forward.limit
    assert limit == GptOssConfig().swiglu_limit


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (changed(hidden_size=2880.0), "hidden_size: found 2880.0, expected an integer"),
        (changed(vocab_size=True), "vocab_size: found True, expected an integer"),
        (changed(head_dim=None), "head_dim: found null, expected an integer"),
        (changed(num_local_experts="32"), "num_local_experts: found '32', expected an integer"),
        (changed(model_type="t5"), "model_type: found 't5', expected 'gpt_oss'"),
        (changed(architectures=["LlamaForCausalLM"]), "architectures: found ['LlamaForCausalLM']"),
        (changed(hidden_act="gelu"), "hidden_act: found 'gelu', expected 'silu'"),
        (
            changed(num_key_value_heads=7),
            "num_attention_heads: found 64, expected a multiple of num_key_value_heads = 7",
        ),
        (changed(head_dim=63), "head_dim: found 63, expected an even number"),
        (
            changed(num_hidden_layers=5),
            "layer_types: found 4 entries, expected num_hidden_layers = 5",
        ),
        (
            changed(
                layer_types=["sliding_attention", "chunked", "full_attention", "full_attention"]
            ),
            "layer_types[1]: found",
        ),
        (changed(layer_types="sliding"), "layer_types: found 'sliding', expected a list"),
        (
            changed(num_experts_per_tok=33),
            "num_experts_per_tok: found 33, expected at most num_local_experts = 32",
        ),
        (changed(sliding_window=0), "sliding_window: found 0, expected an integer of at least 1"),
        (changed(sliding_window=None), "sliding_window: found null"),
        (changed(hidden_size=2890), "hidden_size: found 2890, expected a multiple of 32"),
        (
            changed(intermediate_size=2890),
            "intermediate_size: found 2890, expected a multiple of 32",
        ),
        (changed(rms_norm_eps=float("nan")), "rms_norm_eps: found nan, expected a finite number"),
        (changed(swiglu_limit=float("inf")), "swiglu_limit: found inf, expected a finite number"),
        (changed(rms_norm_eps=10**400), "rms_norm_eps: found 1000"),
        (changed(attention_bias=1), "attention_bias: found 1, expected true or false"),
        (changed(rope_scaling=[1]), "rope_scaling: found [1], expected a JSON object"),
        (
            changed(rope_scaling={"rope_type": "linear", "factor": 2.0}),
            "rope_scaling.rope_type: found 'linear'",
        ),
        (changed(rope_scaling={"full_attention": YARN}), "found settings per layer type"),
        (changed(partial_rotary_factor=0.5), "partial_rotary_factor: found 0.5, expected 1"),
        (with_yarn(partial_rotary_factor=0.5), "rope_scaling.partial_rotary_factor: found 0.5"),
        (with_yarn(factor=MISSING), "rope_scaling.factor: missing"),
        (with_yarn(factor=float("inf")), "rope_scaling.factor: found inf"),
        (with_yarn(truncate=None), "rope_scaling.truncate: found null, expected true or false"),
        (
            with_yarn(original_max_position_embeddings=0),
            "original_max_position_embeddings: found 0",
        ),
    ],
)
def test_wrong_values_are_named(document: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        read(document)
    assert str(caught.value).startswith("config.json: ")
    assert message in str(caught.value)
    assert "; " not in str(caught.value), "one mistake must give one complaint"


def test_all_problems_come_in_one_error() -> None:
    with pytest.raises(CheckpointError) as caught:
        read(changed(hidden_act="gelu", head_dim=63, vocab_size=0, rope_scaling={"type": "llama3"}))
    text = str(caught.value)
    assert text.count("; ") == 3
    assert all(
        name in text for name in ("hidden_act", "head_dim", "vocab_size", "rope_scaling.type")
    )


def test_sizes_need_no_multiple_of_32_without_mxfp4() -> None:
    assert read(changed(quantization_config=MISSING, hidden_size=2890)).hidden_size == 2890
