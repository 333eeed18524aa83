"""Small true faults of a model, each a change to a `Decoder`: what a parity run has to notice."""

import dataclasses
from collections.abc import Callable, Mapping

import torch

from gptoss_onnx.reference import Decoder
from gptoss_onnx.reference.layers import MixtureOfExperts, Norm
from gptoss_onnx.reference.rope import inverse_frequencies

LAYER = 1  # whose weights are changed


def alpha(model: Decoder) -> None:
    """1.702 becomes 1.703 in every layer."""
    for mixture in model.modules():
        if isinstance(mixture, MixtureOfExperts):
            mixture.attributes = dataclasses.replace(mixture.attributes, alpha=1.703)


def theta(model: Decoder) -> None:
    """The base of the rotary embedding is 1e-4 larger, relatively."""
    rope = model.config.rope
    assert rope is not None
    frequencies, _ = inverse_frequencies(dataclasses.replace(rope, theta=rope.theta * (1 + 1e-4)))
    model.inv_freq = frequencies.to(model.get_buffer("inv_freq").dtype)


def expert_bias(model: Decoder) -> None:
    """One expert's bias of the down projection is 1 % larger."""
    bias = model.get_parameter(f"model.layers.{LAYER}.mlp.experts.down_proj_bias").clone()
    bias[0] *= 1.01
    _set(model, f"model.layers.{LAYER}.mlp.experts.down_proj_bias", bias)


def epsilon(model: Decoder) -> None:
    """The norms' epsilon is 1e-6 instead of 1e-5."""
    for norm in model.modules():
        if isinstance(norm, Norm):
            norm.eps = 1e-6


def lowest_bit(model: Decoder) -> None:
    """The lowest bit of one bfloat16 weight of a projection is flipped."""
    name = f"model.layers.{LAYER}.self_attn.v_proj.weight"
    weight = model.get_parameter(name).clone()
    assert weight.dtype == torch.bfloat16
    weight.view(torch.int16)[0, 0] ^= 1
    _set(model, name, weight)


def _set(model: Decoder, name: str, value: torch.Tensor) -> None:
    owner, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(owner), attribute, torch.nn.Parameter(value, requires_grad=False))


FAULTS: Mapping[str, Callable[[Decoder], None]] = {
    "alpha 1.703 for 1.702": alpha,
    "rope theta off by 1e-4": theta,
    "one expert's bias off by 1 %": expert_bias,
    "eps 1e-6 for 1e-5": epsilon,
    "one bf16 weight's lowest bit": lowest_bit,
}
