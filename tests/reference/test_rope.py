"""Rotary frequencies against transformers."""

import copy
import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GptOssConfig
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssRotaryEmbedding

from gptoss_onnx.reference.rope import inverse_frequencies
from support.gpt_oss_config import MISSING, PUBLISHED, YARN, changed, read, with_yarn


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
