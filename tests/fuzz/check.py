"""Compares what a kernel returned with the op's PyTorch definition in float64.

An expectation is computed once for all CPU levels; its `check` raises AssertionError.
"""

from typing import Protocol

import numpy as np
import torch

from fuzz.case import Case
from fuzz.check_attention import AttentionExpectation
from fuzz.tensors import FLUSHED, OVERFLOWS, UNDERFLOW, torch_inputs, torch_outputs
from gptoss_onnx.custom_ops import (
    linear,  # noqa: F401 - it defines an op, as the next two
    linear_int8,  # noqa: F401
    moe_dispatch,  # noqa: F401
    moe_dispatch_separate,  # noqa: F401
    moe_routing,
)
from gptoss_onnx.custom_ops.linear_packed import Packed, unpack
from support.int8_inputs import allowed_error, in_float64, largest_weight
from support.moe_inputs import listed
from support.tolerances import (
    FUZZ_EXPERTS,
    FUZZ_EXPERTS_LEVELS,
    FUZZ_EXPERTS_ROUNDING,
    NATIVE_INT8,
    NATIVE_LINEAR,
)


class Expectation(Protocol):
    """What a case should return."""

    def check(self, arrays: list[np.ndarray]) -> None:
        """Compare one level's outputs; the first call is with those of the scalar level."""


def expectation(case: Case) -> Expectation:
    """Return what a valid case should return."""
    if case.op in ("Linear", "LinearPacked"):
        return LinearExpectation(case)
    if case.op == "LinearInt8":
        return LinearInt8Expectation(case)
    return AttentionExpectation(case) if case.op == "SinkAttention" else MoEExpectation(case)


class LinearExpectation:
    """Each output within a share of what its sum adds up."""

    def __init__(self, case: Case) -> None:
        self._case = case
        inputs = torch_inputs(case)
        x, weight, bias = inputs["x"].double(), _weight(inputs).double(), inputs["bias"]
        if case.attributes.get("transposed"):
            weight = weight.T
        if case.mode != "exact":
            x = inputs["x"].bfloat16().double()
        bias = torch.zeros(len(weight), dtype=torch.float64) if bias is None else bias.double()
        self._expected = torch.ops.gptoss.linear(x, weight, bias)
        self._magnitude = torch.ops.gptoss.linear(x.abs(), weight.abs(), bias.abs())
        self._flushed = torch.ops.gptoss.linear(_tiny(x), weight.abs()) + torch.ops.gptoss.linear(
            x.abs(), _tiny(weight)
        )

    def check(self, arrays: list[np.ndarray]) -> None:
        """Compare one level's outputs."""
        (found,) = torch_outputs(self._case, arrays)
        comparable = self._expected.isfinite() & (self._magnitude < OVERFLOWS)
        allowed = NATIVE_LINEAR * self._magnitude + self._flushed + UNDERFLOW
        close = (found - self._expected).abs() <= allowed
        wrong = comparable & ~close
        assert not wrong.any(), f"{int(wrong.sum())} outputs differ from the definition"
        assert not (found.isfinite() & ~self._expected.isfinite()).any(), (
            "an infinity or NaN got lost"
        )


def _weight(inputs: dict[str, torch.Tensor | None]) -> torch.Tensor:
    """Return the weight of a Linear, or the bfloat16 one that a LinearPacked holds."""
    if "weight" in inputs:
        return inputs["weight"]
    parts = ("low", "high", "bases", "positions", "values")
    return unpack(Packed(*(inputs[name] for name in parts)))


def _tiny(x: torch.Tensor) -> torch.Tensor:
    """Return the sizes of what a bfloat16 product may take as zero, and zero elsewhere."""
    return torch.where(x.abs() < FLUSHED, x.abs(), 0)


class LinearInt8Expectation:
    """Each output within what its activation mode may round.

    Left out is what overflows float32 in some order of multiplying only: a weight, on which the
    definition is infinite, or a block's sum before it meets its scale, as some kernels compute it.
    """

    def __init__(self, case: Case) -> None:
        self._case = case
        inputs = torch_inputs(case)
        self._expected = torch.ops.gptoss.linear_int8(*in_float64(inputs).values())
        self._allowed = allowed_error(inputs, case.mode)
        self._comparable = (
            self._expected.isfinite()
            & (self._allowed < NATIVE_INT8[case.mode] * OVERFLOWS)
            & (largest_weight(inputs) < OVERFLOWS)
            & (_unscaled(inputs) < OVERFLOWS)
        )

    def check(self, arrays: list[np.ndarray]) -> None:
        """Compare one level's outputs."""
        (found,) = torch_outputs(self._case, arrays)
        close = (found - self._expected).abs() <= self._allowed + UNDERFLOW
        wrong = self._comparable & ~close
        assert not wrong.any(), f"{int(wrong.sum())} outputs differ from the definition"
        assert not (found.isfinite() & ~self._expected.isfinite()).any(), (
            "an infinity or NaN got lost"
        )


def _unscaled(inputs: dict[str, torch.Tensor | None]) -> torch.Tensor:
    """Return the sums of |x · weight| without scales in float64, (N, M)."""
    return torch.ops.gptoss.linear(inputs["x"].double().abs(), inputs["weight"].double().abs())


def _experts(case: Case, inputs: dict[str, torch.Tensor | None]) -> torch.Tensor:
    """Return what the definition of the case's op makes of these inputs."""
    ops, attributes = torch.ops.gptoss, case.attributes
    found: torch.Tensor
    if case.op == "MoEDispatchSeparate":
        found = ops.moe_dispatch_separate(*listed(inputs), **attributes)
    elif case.op == "MoEDispatchMXFP4":
        found = ops.moe_dispatch_mxfp4(*inputs.values(), **attributes)
    else:
        found = ops.moe_dispatch(*inputs.values(), **attributes)
    return found


class MoEExpectation:
    """All outputs together within a share of their norm, and of what rounding the tokens does to
    the definition itself: with limit 0, gates of 90 leave outputs that it changes wholly. Tokens
    and experts with wild numbers are left out.
    """

    def __init__(self, case: Case) -> None:
        self._case = case
        self._scalar: torch.Tensor | None = None
        inputs = torch_inputs(case)
        inputs["hidden"] = inputs["hidden"].double()
        self._expected = _experts(case, inputs)
        rounded = _experts(case, {**inputs, "hidden": inputs["hidden"].bfloat16().double()})
        self._moved = FUZZ_EXPERTS_ROUNDING[case.mode] * (rounded - self._expected)
        # An output that cancels out says nothing of its rounding: the same with positive down
        # weights does.
        for name, tensor in inputs.items():
            if name.startswith("down") and tensor is not None and tensor.is_floating_point():
                inputs[name] = tensor.abs()
        if "down_blocks" in inputs:
            inputs["down_blocks"] = inputs["down_blocks"] & 0x77  # without the signs
        self._size = _experts(case, inputs)
        chosen, _ = moe_routing.route(
            inputs["router_logits"].double(), int(case.attributes["top_k"])
        )
        wild = torch.zeros(len(chosen), dtype=torch.bool)
        for kind, number in case.wild:
            wild |= (
                (chosen == number).any(dim=1)
                if kind == "expert"
                else torch.arange(len(wild)) == number
            )
        self._tame = ~wild

    def check(self, arrays: list[np.ndarray]) -> None:
        """Compare one level's outputs."""
        (found,) = torch_outputs(self._case, arrays)
        assert not (found.isfinite() & ~self._expected.isfinite()).any(), (
            "an infinity or NaN got lost"
        )
        expected, size, ours = (x[self._tame].double() for x in (self._expected, self._size, found))
        finite = expected.isfinite()
        assert ours[finite].isfinite().all(), "an infinity or NaN where the definition has none"
        norm = max(float(expected[finite].norm()), float(size[size.isfinite()].norm()), UNDERFLOW)
        moved = float(self._moved[self._tame][finite].nan_to_num(0, 0, 0).norm()) / norm
        error = float((ours - expected)[finite].norm()) / norm
        assert error < FUZZ_EXPERTS[self._case.mode] + moved, (
            f"relative error {error} against the definition"
        )
        if self._scalar is None:
            self._scalar = ours
        apart = float((ours - self._scalar)[finite].norm()) / norm
        assert apart < FUZZ_EXPERTS_LEVELS[self._case.mode] + moved, (
            f"relative difference {apart} from the scalar level"
        )
