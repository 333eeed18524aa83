# mypy: ignore-errors
# onnxscript's `@script` rewrites these functions at import; a type checker sees Python that never
# runs.
"""Portable bodies of `ai.gptoss::MoEDispatch` and `MoEDispatchMXFP4`: a loop over the chosen
experts, whose parts are chosen by what a node uses.

Legend: N tokens, n those of one expert, E experts, Hd hidden size, I expert width. With an un-gated
activation, I stands where 2I is written.
"""

import onnx
from onnxscript import FLOAT, INT64, UINT8, script
from onnxscript.onnx_opset import opset24 as op
from onnxscript.values import Opset

from gptoss_onnx.custom_ops import DOMAIN, DOMAIN_VERSION
from gptoss_onnx.custom_ops.mxfp4 import BYTE_TO_LEVELS, SCALE_TO_FACTOR

gptoss = Opset(DOMAIN, DOMAIN_VERSION)

# One Gather decodes both nibbles of a byte, low nibble first; another turns an E8M0 byte into
# 2^(byte − 127).
_BYTE_TO_LEVELS = onnx.numpy_helper.from_array(BYTE_TO_LEVELS.numpy(), "byte_to_levels")
_SCALE_TO_FACTOR = onnx.numpy_helper.from_array(SCALE_TO_FACTOR.numpy(), "scale_to_factor")


def chosen(use):
    """Return the body of a node and the parts that it calls, callees first: name → function."""
    decoding = {"DecodeMXFP4": DecodeMXFP4} if use.op == "MoEDispatchMXFP4" else {}
    gated = {"ClampedSwiGLU": ClampedSwiGLU} if use.attribute("activation") == "swiglu" else {}
    return {
        **decoding,
        **gated,
        "Activated": _activated(use),
        "Routed": Routed if use.attribute("normalize") else RoutedOverAll,
        "GateUpBias": GateUpBias if use.has("gate_up_bias") else NoBias,
        "DownBias": DownBias if use.has("down_bias") else NoBias,
        "WithExpert": WithExpert,
        use.op: MoEDispatchMXFP4 if decoding else MoEDispatch,
    }


def _activated(use):
    activation = use.attribute("activation")
    if activation != "swiglu":
        return _UNGATED[activation]
    halves = use.op == "MoEDispatch" and not use.attribute("interleaved")
    return ActivatedHalves if halves else Activated


@script(gptoss, default_opset=op)
def DecodeMXFP4(blocks: UINT8, scales: UINT8) -> FLOAT:  # noqa: N802
    """Decode (R, G, 16) bytes with (R, G) scales to (R, G·32)."""
    pairs = op.Gather(op.Constant(value=_BYTE_TO_LEVELS), op.Cast(blocks, to=6))  # (R, G, 16, 2)
    values = op.Reshape(pairs, op.Constant(value_ints=[0, 0, 32]))
    factors = op.Gather(op.Constant(value=_SCALE_TO_FACTOR), op.Cast(scales, to=6))  # (R, G)
    scaled = op.Mul(values, op.Unsqueeze(factors, op.Constant(value_ints=[-1])))
    return op.Reshape(scaled, op.Constant(value_ints=[0, -1]))


@script(gptoss, default_opset=op)
def ClampedSwiGLU(  # noqa: N802
    all_gates: FLOAT, all_ups: FLOAT, alpha: float, limit: float, beta: float
) -> FLOAT:
    """Activate (n, I): (up + beta) · gate · σ(alpha · gate), both clamped."""
    top = op.Constant(value_float=limit)
    gate = op.Min(all_gates, top)
    up = op.Max(op.Min(all_ups, top), op.Neg(top))
    gain = op.Mul(op.Constant(value_float=alpha), gate)
    return op.Mul(op.Mul(op.Add(up, op.Constant(value_float=beta)), gate), op.Sigmoid(gain))


@script(gptoss, default_opset=op)
def Activated(wide: FLOAT, alpha: float, limit: float, beta: float) -> FLOAT:  # noqa: N802
    """Activate interleaved (n, 2I) to (n, I)."""
    pairs = op.Reshape(wide, op.Constant(value_ints=[0, -1, 2]))
    gate = op.Gather(pairs, op.Constant(value_int=0), axis=2)
    up = op.Gather(pairs, op.Constant(value_int=1), axis=2)
    return ClampedSwiGLU(gate, up, alpha=alpha, limit=limit, beta=beta)


@script(gptoss, default_opset=op)
def ActivatedHalves(wide: FLOAT, alpha: float, limit: float, beta: float) -> FLOAT:  # noqa: N802
    """Activate gates, then ups, (n, 2I) to (n, I)."""
    gate, up = op.Split(wide, axis=1, num_outputs=2)
    return ClampedSwiGLU(gate, up, alpha=alpha, limit=limit, beta=beta)


@script(gptoss, default_opset=op)
def ActivatedGELU(  # noqa: N802
    wide: FLOAT, alpha: float, limit: float, beta: float
) -> FLOAT:
    """Activate (n, I) without a gate."""
    return op.Gelu(wide)


@script(gptoss, default_opset=op)
def ActivatedTanhGELU(  # noqa: N802
    wide: FLOAT, alpha: float, limit: float, beta: float
) -> FLOAT:
    """Activate (n, I) without a gate."""
    return op.Gelu(wide, approximate="tanh")


@script(gptoss, default_opset=op)
def ActivatedReLU(  # noqa: N802
    wide: FLOAT, alpha: float, limit: float, beta: float
) -> FLOAT:
    """Activate (n, I) without a gate."""
    return op.Relu(wide)


@script(gptoss, default_opset=op)
def ActivatedSiLU(  # noqa: N802
    wide: FLOAT, alpha: float, limit: float, beta: float
) -> FLOAT:
    """Activate (n, I) without a gate."""
    return op.Mul(wide, op.Sigmoid(wide))


_UNGATED = {
    "gelu": ActivatedGELU,
    "gelu_tanh": ActivatedTanhGELU,
    "relu": ActivatedReLU,
    "silu": ActivatedSiLU,
}


@script(gptoss, default_opset=op)
def Routed(router_logits: FLOAT, top_k: int):  # noqa: N802
    """Choose experts, and share a token among them by a softmax over their logits."""
    one = op.Constant(value_ints=[1])
    logits, experts = op.TopK(router_logits, op.Reshape(op.Constant(value_int=top_k), one))
    return experts, op.Softmax(logits, axis=-1)


@script(gptoss, default_opset=op)
def RoutedOverAll(router_logits: FLOAT, top_k: int):  # noqa: N802
    """Choose experts, and share a token among all experts, those that it does not visit too."""
    one = op.Constant(value_ints=[1])
    _logits, experts = op.TopK(router_logits, op.Reshape(op.Constant(value_int=top_k), one))
    return experts, op.GatherElements(op.Softmax(router_logits, axis=-1), experts, axis=1)


@script(gptoss, default_opset=op)
def GateUpBias(biases: FLOAT, expert: INT64) -> FLOAT:  # noqa: N802
    """Return an expert's bias (2I)."""
    return op.Gather(biases, expert)


@script(gptoss, default_opset=op)
def DownBias(biases: FLOAT, expert: INT64) -> FLOAT:  # noqa: N802
    """Return an expert's bias (Hd)."""
    return op.Gather(biases, expert)


@script(gptoss, default_opset=op)
def NoBias(biases: FLOAT, expert: INT64) -> FLOAT:  # noqa: N802
    """Return what a Gemm adds where the node leaves out the biases."""
    return op.Constant(value_float=0.0)


@script(gptoss, default_opset=op)
def WithExpert(  # noqa: N802
    output: FLOAT,
    hidden: FLOAT,
    experts: INT64,
    shares: FLOAT,
    expert: INT64,
    gate_up: FLOAT,
    gate_up_bias: FLOAT,
    down: FLOAT,
    down_bias: FLOAT,
    alpha: float,
    limit: float,
    beta: float,
    by_rows: int,
) -> FLOAT:
    """Add one expert's weighted results to the output, for the tokens (N, top_k) that chose it.

    Its weights are (2I, Hd) and (Hd, I) with `by_rows` 1, else (Hd, 2I) and (I, Hd).
    """
    one = op.Constant(value_ints=[1])
    masked = op.Where(op.Equal(experts, expert), shares, op.Constant(value_float=0.0))
    share = op.ReduceSum(masked, one, keepdims=0)  # (N)
    rows = op.Transpose(op.NonZero(share), perm=[1, 0])  # (n, 1)
    wide = op.Gemm(op.GatherND(hidden, rows), gate_up, gate_up_bias, transB=by_rows)
    inner = Activated(wide, alpha=alpha, limit=limit, beta=beta)
    narrow = op.Gemm(inner, down, down_bias, transB=by_rows)
    weighted = op.Mul(narrow, op.Unsqueeze(op.GatherND(share, rows), one))
    return op.ScatterND(output, rows, weighted, reduction="add")


@script(gptoss, default_opset=op)
def MoEDispatchMXFP4(  # noqa: N802
    hidden: FLOAT,
    router_logits: FLOAT,
    gate_up_blocks: UINT8,
    gate_up_scales: UINT8,
    gate_up_bias: FLOAT,
    down_blocks: UINT8,
    down_scales: UINT8,
    down_bias: FLOAT,
    top_k: int,
    alpha: float,
    limit: float,
    beta: float = 1.0,
    activation: str = "swiglu",
    normalize: int = 1,
) -> FLOAT:
    """Loop over the experts that some token chose, and decode each."""
    experts, shares = Routed(router_logits, top_k=top_k)
    visited, _first, _inverse, _counts = op.Unique(experts)
    output = op.Sub(hidden, hidden)
    for step in range(op.Size(visited)):
        expert = op.Gather(visited, step)
        output = WithExpert(
            output,
            hidden,
            experts,
            shares,
            expert,
            DecodeMXFP4(op.Gather(gate_up_blocks, expert), op.Gather(gate_up_scales, expert)),
            GateUpBias(gate_up_bias, expert),
            DecodeMXFP4(op.Gather(down_blocks, expert), op.Gather(down_scales, expert)),
            DownBias(down_bias, expert),
            alpha=alpha,
            limit=limit,
            beta=beta,
            by_rows=1,
        )
    return output


@script(gptoss, default_opset=op)
def MoEDispatch(  # noqa: N802
    hidden: FLOAT,
    router_logits: FLOAT,
    gate_up,
    gate_up_bias: FLOAT,
    down,
    down_bias: FLOAT,
    top_k: int,
    alpha: float,
    limit: float,
    beta: float = 1.0,
    activation: str = "swiglu",
    normalize: int = 1,
    interleaved: int = 1,
    transposed: int = 0,
) -> FLOAT:
    """Loop over the experts that some token chose, on dense weights."""
    experts, shares = Routed(router_logits, top_k=top_k)
    visited, _first, _inverse, _counts = op.Unique(experts)
    output = op.Sub(hidden, hidden)
    for step in range(op.Size(visited)):
        expert = op.Gather(visited, step)
        output = WithExpert(
            output,
            hidden,
            experts,
            shares,
            expert,
            op.Cast(op.Gather(gate_up, expert), to=1),
            GateUpBias(gate_up_bias, expert),
            op.Cast(op.Gather(down, expert), to=1),
            DownBias(down_bias, expert),
            alpha=alpha,
            limit=limit,
            beta=beta,
            by_rows=transposed,
        )
    return output
