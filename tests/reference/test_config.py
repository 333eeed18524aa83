"""Configuration and rotary frequencies against the published file and against transformers."""

import copy
import dataclasses
import json
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GptOssConfig
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssRotaryEmbedding

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
from gptoss_onnx.reference.rope import inverse_frequencies

# The published config.json of gpt-oss-20b, cut to four layers.
PUBLISHED: dict[str, Any] = {
    "architectures": ["GptOssForCausalLM"],
    "attention_bias": True,
    "attention_dropout": 0.0,
    "eos_token_id": 200002,
    "experts_per_token": 4,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 2880,
    "initial_context_length": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 2880,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
    "max_position_embeddings": 131072,
    "model_type": "gpt_oss",
    "num_attention_heads": 64,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 4,
    "num_key_value_heads": 8,
    "num_local_experts": 32,
    "output_router_logits": False,
    "pad_token_id": 199999,
    "quantization_config": {
        "modules_to_not_convert": [
            "model.layers.*.self_attn",
            "model.layers.*.mlp.router",
            "model.embed_tokens",
            "lm_head",
        ],
        "quant_method": "mxfp4",
    },
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "factor": 32.0,
        "original_max_position_embeddings": 4096,
        "rope_type": "yarn",
        "truncate": False,
    },
    "rope_theta": 150000,
    "router_aux_loss_coef": 0.9,
    "sliding_window": 128,
    "swiglu_limit": 7.0,
    "tie_word_embeddings": False,
    "transformers_version": "4.55.0.dev0",
    "use_cache": True,
    "vocab_size": 201088,
}
YARN = PUBLISHED["rope_scaling"]
MISSING = object()


def changed(**changes: Any) -> dict[str, Any]:
    document = copy.deepcopy(PUBLISHED) | changes
    return {key: value for key, value in document.items() if value is not MISSING}


def with_yarn(**changes: Any) -> dict[str, Any]:
    return changed(
        rope_scaling={key: value for key, value in (YARN | changes).items() if value is not MISSING}
    )


def read(document: dict[str, Any]) -> DecoderConfig:
    return read_config(document, StoredNames([]), "config.json")[2]


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
        (changed(num_hidden_layers=MISSING), "num_hidden_layers: missing, expected an integer"),
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
        (changed(rope_theta=MISSING), "rope_theta: missing"),
        (changed(rope_scaling=MISSING), "rope_scaling: missing"),
        (changed(rope_scaling=None), "rope_scaling: missing"),
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
        read(
            changed(
                hidden_act="gelu", head_dim=63, vocab_size=MISSING, rope_scaling={"type": "llama3"}
            )
        )
    text = str(caught.value)
    assert text.count("; ") == 3
    assert all(
        name in text for name in ("hidden_act", "head_dim", "vocab_size", "rope_scaling.type")
    )


def test_sizes_need_no_multiple_of_32_without_mxfp4() -> None:
    assert read(changed(quantization_config=MISSING, hidden_size=2890)).hidden_size == 2890


@pytest.mark.parametrize(
    "document",
    [
        PUBLISHED,
        with_yarn(truncate=MISSING),
        with_yarn(truncate=True),
        with_yarn(factor=None),
        with_yarn(factor=1.0),
        with_yarn(factor=8),
        with_yarn(beta_fast=MISSING, beta_slow=MISSING),
        with_yarn(beta_fast=0, beta_slow=None),
        with_yarn(beta_fast=16, beta_slow=2),
        with_yarn(attention_factor=1.25),
        with_yarn(attention_factor=None, mscale=0.7, mscale_all_dim=1.3),
        with_yarn(mscale=0.7),
        with_yarn(original_max_position_embeddings=MISSING),
        with_yarn(rope_type=MISSING, type="yarn"),
        with_yarn(rope_theta=10000.0),
        with_yarn(original_max_position_embeddings=3, beta_fast=1000),
        changed(original_max_position_embeddings=2048),
        changed(rope_scaling={"rope_type": "default"}),
        changed(rope_scaling={"rope_theta": 5000.5}),
        changed(rope_scaling=MISSING, rope_parameters=YARN | {"rope_theta": 150000.0}),
        changed(rope_parameters={"rope_type": "default", "rope_theta": 77.0}),
        changed(rope_theta=12345.678, head_dim=80),
    ],
)
def test_frequencies_equal_those_of_transformers(document: dict[str, Any]) -> None:
    assert_same_frequencies(document)


@settings(max_examples=40, deadline=None)
@given(
    theta=st.floats(2.0, 1e7),
    head_dim=st.integers(1, 64).map(lambda half: 2 * half),
    factor=st.floats(0.5, 64.0),
    original=st.integers(16, 8192),
    truncate=st.booleans(),
)
def test_frequencies_equal_those_of_transformers_for_any_values(
    theta: float, head_dim: int, factor: float, original: int, truncate: bool
) -> None:
    document = with_yarn(
        factor=factor, original_max_position_embeddings=original, truncate=truncate
    )
    assert_same_frequencies(document | {"rope_theta": theta, "head_dim": head_dim})


def assert_same_frequencies(document: dict[str, Any]) -> None:
    theirs = GptOssRotaryEmbedding(GptOssConfig(**copy.deepcopy(document)))
    frequencies, factor = inverse_frequencies(read(document).rope)
    assert frequencies.dtype == torch.float32
    assert torch.equal(frequencies, theirs.inv_freq)
    assert factor == theirs.attention_scaling


def test_truncate_changes_the_frequencies() -> None:
    rope = read(PUBLISHED).rope
    truncated = dataclasses.replace(rope, truncate=True)
    assert not torch.equal(inverse_frequencies(rope)[0], inverse_frequencies(truncated)[0])
