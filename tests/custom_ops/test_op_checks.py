"""What the PyTorch definitions refuse: the same attributes and shapes as the native kernels."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from gptoss_onnx.custom_ops import linear, linear_int8, moe_dispatch, sink_attention  # noqa: F401 - they define the ops
from gptoss_onnx.errors import InputError
from support.moe_inputs import dense_inputs, laid_out, mxfp4_inputs

MOE = {
    "top_k": 1,
    "alpha": 1.702,
    "limit": 7.0,
    "beta": 1.0,
    "activation": "swiglu",
    "normalize": 1,
}
NAN = float("nan")


def _moe(layout: str, **attributes: int | str) -> dict[str, Any]:
    inputs = mxfp4_inputs(tokens=3, hidden=64, width=96, experts=4, seed=1)
    if layout == "mxfp4":
        return {**inputs, **MOE}
    layouts = {"interleaved": 1, "transposed": 0, **attributes}
    dense = laid_out(dense_inputs(inputs, torch.float32), **attributes)
    return {**dense, **(MOE | {"activation": layouts.pop("activation", "swiglu")}), **layouts}


def _attention() -> dict[str, Any]:
    batch, new, heads, kv_heads, capacity, head_dim = 2, 3, 4, 2, 8, 4
    return {
        "query": torch.ones(batch, new, heads * head_dim),
        "key": torch.ones(batch, new, kv_heads * head_dim),
        "value": torch.ones(batch, new, kv_heads * head_dim),
        "past_key": torch.zeros(batch, kv_heads, capacity, head_dim),
        "past_value": torch.zeros(batch, kv_heads, capacity, head_dim),
        "past_lengths": torch.tensor([0, 2]),
        "new_lengths": torch.tensor([3, 1]),
        "sinks": torch.zeros(heads),
        "cos": torch.ones(batch, new, head_dim // 2),
        "sin": torch.zeros(batch, new, head_dim // 2),
        "alibi_slopes": torch.ones(heads),
        "distance_bias": None,
        "sink_cos": torch.ones(batch, new, head_dim // 2),
        "sink_sin": torch.zeros(batch, new, head_dim // 2),
        "num_heads": heads,
        "kv_num_heads": kv_heads,
        "scale": 0.5,
        "window": 6,
        "interleaved": 0,
        "sink_tokens": 2,
        "sink_bias": 0.5,
    }


def _linear() -> dict[str, Any]:
    return {"x": torch.ones(2, 32), "weight": torch.ones(5, 32), "bias": torch.ones(5)}


def _conv1d() -> dict[str, Any]:
    x, weight = torch.ones(2, 32), torch.ones(32, 5)
    return {"x": x, "weight": weight, "bias": torch.ones(5), "transposed": True}


def _linear_int8() -> dict[str, Any]:
    return {
        "x": torch.ones(2, 64),
        "weight": torch.ones(5, 64, dtype=torch.int8),
        "scales": torch.ones(5, 2),
        "bias": torch.ones(5),
    }


OPS: dict[str, tuple[Any, Callable[[], dict[str, Any]]]] = {
    "dense": (torch.ops.gptoss.moe_dispatch, lambda: _moe("dense")),
    "dense rows": (torch.ops.gptoss.moe_dispatch, lambda: _moe("dense", transposed=1)),
    "dense gelu": (torch.ops.gptoss.moe_dispatch, lambda: _moe("dense", activation="gelu")),
    "mxfp4": (torch.ops.gptoss.moe_dispatch_mxfp4, lambda: _moe("mxfp4")),
    "attention": (torch.ops.gptoss.sink_attention, _attention),
    "linear": (torch.ops.gptoss.linear, _linear),
    "conv1d": (torch.ops.gptoss.linear, _conv1d),
    "int8": (torch.ops.gptoss.linear_int8, _linear_int8),
}

ATTRIBUTES = [
    *(
        ("dense", name, value)
        for name, value in (("top_k", 0), ("top_k", -1), ("top_k", 5), ("alpha", NAN))
    ),
    *(
        ("mxfp4", name, value)
        for name, value in (("top_k", 0), ("top_k", -1), ("top_k", 5), ("limit", NAN))
    ),
    ("dense", "limit", -1.0),
    *(
        (op, name, value)
        for op in ("dense", "mxfp4")
        for name, value in (("beta", NAN), ("activation", "swish"), ("normalize", 2))
    ),
    *(("dense", name, value) for name in ("interleaved", "transposed") for value in (-1, 2)),
    ("attention", "num_heads", 0),
    ("attention", "num_heads", 3),
    ("attention", "kv_num_heads", -2),
    ("attention", "scale", NAN),
    ("attention", "window", -1),
    ("attention", "interleaved", 2),
    ("attention", "sink_tokens", -1),
    ("attention", "sink_tokens", 6),
    ("attention", "sink_bias", NAN),
]


@pytest.mark.parametrize(("op", "name", "value"), ATTRIBUTES)
def test_attributes_without_sense_are_refused(op: str, name: str, value: float | str) -> None:
    run, inputs = OPS[op]
    found = repr(value) if isinstance(value, str) else value
    with pytest.raises(
        InputError, match=rf"^[A-Za-z0-9]+: attribute '{name}': found {found}, expected "
    ):
        run(*{**inputs(), name: value}.values())


@pytest.mark.parametrize(
    ("op", "name"), [(op, name) for op, (_, make) in OPS.items() for name in make()]
)
def test_shapes_that_do_not_fit_are_refused(op: str, name: str) -> None:
    """Every tensor once with its last dimension shrunk to 1, which PyTorch might broadcast, and
    once flattened.
    """
    run, make = OPS[op]
    inputs = make()
    run(*inputs.values())
    if not isinstance(inputs[name], torch.Tensor):
        return
    tensor = inputs[name]
    for wrong in (
        tensor[..., :1],
        tensor.flatten()[None] if tensor.dim() == 1 else tensor.flatten(),
    ):
        with pytest.raises(
            InputError, match=r"^[A-Za-z0-9]+: input '\w+': found shape \(.*\), expected "
        ):
            run(*{**inputs, name: wrong.contiguous()}.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sin": None}, "'sin': found no tensor, expected one with cos and only then"),
        ({"cos": None}, "'sin': found a tensor, expected one with cos and only then"),
        (
            {"sink_sin": None},
            "'sink_sin': found no tensor, expected one with cos and sink_tokens and only then",
        ),
        (
            {"sink_tokens": 0, "sink_bias": 0.0},
            "'sink_cos': found a tensor, expected one with cos and sink_tokens and only then",
        ),
        (
            {"cos": torch.ones(2, 3, 3)},
            r"'cos': found shape \(2, 3, 3\), expected \(2, 3, 2\) = \(B, S, R/2\) with R/2 from 1 "
            "to D/2 = 2",
        ),
        ({"cos": torch.ones(2, 3, 0)}, r"'cos': found shape \(2, 3, 0\), expected \(2, 3, 1\)"),
        ({"distance_bias": torch.ones(4)}, r"'distance_bias': found shape \(4,\), expected rank 2"),
        ({"distance_bias": torch.ones(4, 0)}, r"'distance_bias': .* expected \(H, N\) with N at "),
        ({"distance_bias": torch.ones(3, 2)}, r"'distance_bias': .* expected \(4, 2\) = \(H, N\)"),
    ],
)
def test_optional_inputs_without_sense_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^SinkAttention: input {message}"):
        torch.ops.gptoss.sink_attention(*{**_attention(), **change}.values())


def test_a_bias_needs_kept_tokens() -> None:
    inputs = {**_attention(), "sink_tokens": 0, "sink_cos": None, "sink_sin": None}
    with pytest.raises(
        InputError, match=r"'sink_bias': found 0\.5, expected a finite number, 0 with"
    ):
        torch.ops.gptoss.sink_attention(*inputs.values())


@pytest.mark.parametrize(
    ("name", "lengths"),
    [("past_lengths", [-1, 0]), ("new_lengths", [0, 4]), ("new_lengths", [-1, 0])],
)
def test_lengths_out_of_range_are_refused(name: str, lengths: list[int]) -> None:
    inputs = {**_attention(), name: torch.tensor(lengths)}
    with pytest.raises(
        InputError, match=rf"^SinkAttention: input '{name}': found -?\d in row [01], expected 0 to "
    ):
        torch.ops.gptoss.sink_attention(*inputs.values())
