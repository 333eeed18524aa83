"""Calls of the MoE ops for the tests of their native kernels."""

from collections.abc import Mapping

import torch

# Importing them defines the ops.
from gptoss_onnx.custom_ops import moe_dispatch, moe_dispatch_separate  # noqa: F401
from support.moe_inputs import listed, relative_error
from support.native_levels import NativeCase
from support.op_models import op_model

MODES = ("exact", "bf16", "int8")
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
ATTRIBUTES: dict[str, int | float | str] = {"top_k": 2, "alpha": 1.702, "limit": 7.0}
Inputs = Mapping[str, torch.Tensor | None]


def name_of(inputs: Inputs) -> str:
    """Return the op that has these inputs."""
    if "gate_0" in inputs:
        return "MoEDispatchSeparate"
    return "MoEDispatchMXFP4" if "gate_up_blocks" in inputs else "MoEDispatch"


def native_case(
    inputs: Inputs, mode: str = "exact", threads: int = 2, **attributes: float | str
) -> NativeCase:
    """Return a call in an activation mode; gpt-oss's attributes where none are given."""
    model = op_model(name_of(inputs), inputs, {**ATTRIBUTES, **attributes})
    return NativeCase(model.SerializeToString(), inputs, {"gptoss.activations": mode}, threads)


def definition(inputs: Inputs, **attributes: float | str) -> torch.Tensor:
    """Return what the definition computes in float64."""
    hidden = inputs["hidden"]
    assert hidden is not None
    inputs, attributes = {**inputs, "hidden": hidden.double()}, {**ATTRIBUTES, **attributes}
    result: torch.Tensor
    if "gate_0" in inputs:
        result = torch.ops.gptoss.moe_dispatch_separate(*listed(inputs), **attributes)
    elif "gate_up_blocks" in inputs:
        result = torch.ops.gptoss.moe_dispatch_mxfp4(*inputs.values(), **attributes)
    else:
        result = torch.ops.gptoss.moe_dispatch(*inputs.values(), **attributes)
    return result


def error_of(found: torch.Tensor, inputs: Inputs, **attributes: float | str) -> float:
    """Return the relative error of an output against the definition."""
    return relative_error(found.double(), definition(inputs, **attributes))
