"""What the native MoE kernels refuse: the error names op, operand, what was found and expected."""

import re
from collections.abc import Callable

import pytest
import torch

from support.moe_cases import ATTRIBUTES, Inputs, name_of
from support.moe_inputs import dense_inputs, laid_out, mxfp4_inputs
from support.native_levels import native_session, needs_native
from support.op_models import bare_model, run_ort

pytestmark = needs_native

Change = Callable[[torch.Tensor], torch.Tensor]


def with_nan(logits: torch.Tensor) -> torch.Tensor:
    logits[2, 1] = float("nan")
    return logits


def assert_refused(inputs: Inputs, message: str, **attributes: float | str) -> None:
    model = bare_model(name_of(inputs), inputs, {**ATTRIBUTES, **attributes})
    # the bound run wraps the status
    with pytest.raises(Exception, match=re.escape(f"{name_of(inputs)}: {message}")):
        run_ort(native_session(model.SerializeToString()), inputs)


MXFP4: list[tuple[str, Change, str]] = [
    (
        "hidden",
        lambda x: x.unsqueeze(1).expand(3, 2, 64),
        "shape (3, 2, 64), expected rank 2 (N, Hd)",
    ),
    ("hidden", lambda x: x[:, :48], "shape (3, 48), expected (N, Hd) with Hd a multiple of 32"),
    ("router_logits", lambda x: x[:2], "shape (2, 4), expected shape (3, 4) = (N, E)"),
    (
        "router_logits",
        lambda x: x[:, :1],
        "shape (3, 1), expected (N, E) with at least top_k = 2 experts",
    ),
    ("router_logits", with_nan, "NaN for token 2, expert 1, expected numbers"),
    (
        "gate_up_blocks",
        lambda x: x[:, :, :1],
        "shape (4, 192, 1, 16), expected shape (4, 192, 2, 16) = (E, 2I, Hd/32, 16)",
    ),
    (
        "gate_up_scales",
        lambda x: x[:, :191],
        "shape (4, 191, 2), expected (E, 2I, Hd/32) with I a multiple of 32",
    ),
    ("gate_up_bias", lambda x: x[:, :190], "shape (4, 190), expected shape (4, 192) = (E, 2I)"),
    (
        "down_blocks",
        lambda x: x[..., :8],
        "shape (4, 64, 3, 8), expected shape (4, 64, 3, 16) = (E, Hd, I/32, 16)",
    ),
    ("down_scales", lambda x: x[:3], "shape (3, 64, 3), expected shape (4, 64, 3) = (E, Hd, I/32)"),
    (
        "down_bias",
        lambda x: torch.cat((x, x[:, :1]), dim=1),
        "shape (4, 65), expected shape (4, 64) = (E, Hd)",
    ),
    ("down_bias", lambda x: x[:0], "shape (0, 64), expected shape (4, 64) = (E, Hd)"),
]


@pytest.mark.parametrize(("name", "change", "found"), MXFP4)
def test_wrong_mxfp4_inputs_are_errors(name: str, change: Change, found: str) -> None:
    inputs = mxfp4_inputs(3, 64, 96, experts=4, seed=1)
    wrong = {**inputs, name: change(inputs[name]).contiguous()}
    assert_refused(wrong, f"input '{name}': found {found}")


DENSE: list[tuple[dict[str, int | str], str, Change, str]] = [
    ({}, "gate_up", lambda x: x[..., :191], "(4, 64, 191), expected (E, Hd, 2I) with I at least 1"),
    ({}, "down", lambda x: x[:, :95], "(4, 95, 64), expected shape (4, 96, 64) = (E, I, Hd)"),
    (
        {"transposed": 1},
        "gate_up",
        lambda x: x[:, :191],
        "(4, 191, 64), expected (E, 2I, Hd) with I at least 1",
    ),
    (
        {"transposed": 1},
        "down",
        lambda x: x[..., :95],
        "(4, 64, 95), expected shape (4, 64, 96) = (E, Hd, I)",
    ),
    (
        {"activation": "gelu"},
        "gate_up",
        lambda x: x[:, :63],
        "(4, 63, 96), expected shape (4, 64, 96) = (E, Hd, I)",
    ),
    (
        {"activation": "relu", "transposed": 1},
        "gate_up_bias",
        lambda x: x[:, :95],
        "(4, 95), expected shape (4, 96) = (E, I)",
    ),
]


@pytest.mark.parametrize(("attributes", "name", "change", "found"), DENSE)
def test_wrong_dense_inputs_are_errors(
    attributes: dict[str, int | str], name: str, change: Change, found: str
) -> None:
    dense = dense_inputs(mxfp4_inputs(3, 64, 96, experts=4, seed=1), torch.float16)
    inputs = laid_out(dense, **attributes)
    wrong = {**inputs, name: change(inputs[name]).contiguous()}
    assert_refused(wrong, f"input '{name}': found shape {found}", **attributes)


KNOWN = "swiglu, gelu, gelu_tanh, relu, silu"


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("top_k", 0, "found 0, expected at least 1"),
        ("alpha", float("inf"), "found inf, expected a finite number"),
        ("limit", -1.0, "found -1.000000, expected at least 0"),
        ("beta", float("nan"), "found nan, expected a finite number"),
        ("beta", 1, "found the integer 1, expected a float"),
        ("activation", "swish", f"found 'swish', expected one of {KNOWN}"),
        ("activation", 3, "found the integer 3, expected a string"),
        ("normalize", 2, "found 2, expected 0 or 1"),
        ("normalize", "yes", "found the string 'yes', expected an integer"),
    ],
)
def test_senseless_attributes_are_errors(
    name: str, value: float | str, message: str, dense: bool
) -> None:
    inputs = mxfp4_inputs(1, 32, 32, experts=2, seed=1)
    inputs = dense_inputs(inputs, torch.float32) if dense else inputs
    assert_refused(inputs, f"attribute '{name}': {message}", **{name: value})


@pytest.mark.parametrize("name", ["interleaved", "transposed"])
@pytest.mark.parametrize("value", [-1, 2])
def test_senseless_layouts_are_errors(name: str, value: int) -> None:
    inputs = dense_inputs(mxfp4_inputs(1, 32, 32, experts=2, seed=1), torch.float32)
    message = f"attribute '{name}': found {value}, expected 0 or 1"
    assert_refused(inputs, message, **{name: value})
