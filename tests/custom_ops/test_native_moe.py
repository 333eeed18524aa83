"""The native MoE kernels against the PyTorch definition in float64, at every CPU level and in every
activation mode.
"""

import ctypes
import mmap
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gptoss_onnx.custom_ops import moe_dispatch  # noqa: F401 - it defines the ops
from support.moe_inputs import dense_inputs, mxfp4_inputs, relative_error
from support.native_levels import (
    LIBRARY,
    NativeCase,
    cpu_levels,
    native_session,
    needs_native,
    run_at_level,
    run_case,
)
from support.op_models import op_model, run_ort
from support.tolerances import NATIVE_EXPERTS, NATIVE_EXPERTS_LEVELS

pytestmark = needs_native

MODES = ("exact", "bf16", "int8")
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
ATTRIBUTES: dict[str, int | float] = {"top_k": 2, "alpha": 1.702, "limit": 7.0}
WEIGHTS = ("gate_up_blocks", "gate_up_scales", "down_blocks", "down_scales")
Inputs = dict[str, torch.Tensor]


def native_case(
    inputs: Inputs, mode: str = "exact", threads: int = 2, **attributes: float
) -> NativeCase:
    name = "MoEDispatchMXFP4" if "gate_up_blocks" in inputs else "MoEDispatch"
    model = op_model(name, inputs, {**ATTRIBUTES, **attributes})
    return NativeCase(model.SerializeToString(), inputs, {"gptoss.activations": mode}, threads)


def definition(inputs: Inputs, **attributes: float) -> torch.Tensor:
    mxfp4 = "gate_up_blocks" in inputs
    op = torch.ops.gptoss.moe_dispatch_mxfp4 if mxfp4 else torch.ops.gptoss.moe_dispatch
    arguments = {**inputs, "hidden": inputs["hidden"].double()}
    return op(*arguments.values(), *{**ATTRIBUTES, **attributes}.values())


def error_of(found: torch.Tensor, inputs: Inputs, **attributes: float) -> float:
    return relative_error(found.double(), definition(inputs, **attributes))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 70),
    st.integers(1, 11),
    st.integers(1, 11),
    st.integers(1, 8),
    st.sampled_from(MODES),
    st.data(),
)
def test_mxfp4_equals_definition(
    tokens: int, hidden: int, width: int, experts: int, mode: str, data: st.DataObject
) -> None:
    """Hidden size and width 32 … 352: rows of every number of blocks modulo what a register
    holds.
    """
    inputs = mxfp4_inputs(
        tokens, 32 * hidden, 32 * width, experts, data.draw(st.integers(0, 2**31))
    )
    if data.draw(st.booleans()):
        inputs["router_logits"] = inputs["router_logits"].round()  # ties
    attributes = {"top_k": data.draw(st.integers(1, experts))}
    (found,) = run_case(native_case(inputs, mode, **attributes))
    assert error_of(found, inputs, **attributes) < NATIVE_EXPERTS[mode]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.integers(9, 90), st.integers(1, 90), st.sampled_from(DTYPES))
def test_dense_equals_definition(tokens: int, hidden: int, width: int, dtype: torch.dtype) -> None:
    """Any sizes, since dense weights have no blocks."""
    generator = torch.Generator().manual_seed(tokens)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    inputs = {
        "hidden": normal(tokens, hidden),
        "router_logits": normal(tokens, 4),
        "gate_up": normal(4, hidden, 2 * width).to(dtype),
        "gate_up_bias": normal(4, 2 * width),
        "down": normal(4, width, hidden).to(dtype),
        "down_bias": normal(4, hidden),
    }
    (found,) = run_case(native_case(inputs))
    assert error_of(found, inputs) < NATIVE_EXPERTS["exact"]


def level_cases() -> list[tuple[str, NativeCase, Inputs]]:
    """Shapes on both sides of every kernel's blocking: one token, a few, a tile, more; odd numbers
    of blocks.
    """
    cases = []
    shapes = [
        (1, 2880, 96),
        (1, 96, 2880),
        (3, 160, 32),
        (4, 32, 416),
        (9, 352, 64),
        (21, 128, 224),
        (70, 416, 160),
    ]
    for mode in MODES:
        for seed, (tokens, hidden, width) in enumerate(shapes):
            inputs = mxfp4_inputs(tokens, hidden, width, experts=5, seed=seed)
            cases.append((mode, native_case(inputs, mode), inputs))
        for dtype in DTYPES:
            inputs = dense_inputs(mxfp4_inputs(11, 96, 320, experts=3, seed=9), dtype)
            cases.append((mode, native_case(inputs, mode), inputs))
    return cases


def test_every_cpu_level_equals_definition_and_scalar(tmp_path: Path) -> None:
    cases = level_cases()
    outputs = {
        level: run_at_level(level, [case for _, case, _ in cases], tmp_path)
        for level in cpu_levels()
    }
    for level, found in outputs.items():
        for (mode, case, inputs), (output,), (scalar,) in zip(
            cases, found, outputs["scalar"], strict=True
        ):
            shape = (level, mode, tuple(inputs["hidden"].shape), tuple(case.inputs))
            error = error_of(output, inputs)
            assert error < NATIVE_EXPERTS[mode], shape
            # a kernel may keep more than int8 asks
            finer = mode == "int8" and error < NATIVE_EXPERTS["bf16"]
            assert finer or relative_error(output, scalar) < NATIVE_EXPERTS_LEVELS[mode], shape


def test_every_scale_byte_means_what_the_format_says(tmp_path: Path) -> None:
    """Small scales with huge activations, so that 2^-127 counts; 255 is NaN in its own row
    alone.
    """
    cases = []
    for tokens in (1, 3, 40):
        inputs = mxfp4_inputs(tokens, 160, 64, experts=2, seed=tokens)
        inputs["hidden"] *= 1e30
        inputs["gate_up_bias"].zero_()
        inputs["down_bias"].zero_()
        inputs["gate_up_scales"].copy_(
            torch.arange(5, dtype=torch.uint8).expand_as(inputs["gate_up_scales"])
        )
        cases.append(inputs)
        inputs = {
            name: tensor.clone()
            for name, tensor in mxfp4_inputs(tokens, 160, 64, 2, seed=tokens).items()
        }
        inputs["down_scales"][:, 7, 1] = 255
        inputs["down_scales"][:, 9, 0] = 0
        cases.append(inputs)
    for level in cpu_levels():
        found = run_at_level(level, [native_case(inputs) for inputs in cases], tmp_path)
        for inputs, (output,) in zip(cases, found, strict=True):
            expected = definition(inputs)
            assert torch.equal(output.isnan(), expected.isnan()), level
            assert (
                relative_error(output.double().nan_to_num(), expected.nan_to_num())
                < NATIVE_EXPERTS["exact"]
            ), level


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("tokens", [1, 12])
def test_weights_may_lie_at_any_address(mode: str, tokens: int) -> None:
    inputs = mxfp4_inputs(tokens, 96, 160, experts=3, seed=4)
    session = native_session(native_case(inputs).model, {"gptoss.activations": mode})
    (aligned,) = run_ort(session, inputs)
    for offset in range(1, 17):
        moved = {**inputs, **{name: shifted(inputs[name], offset) for name in WEIGHTS}}
        assert torch.equal(run_ort(session, moved)[0], aligned)


def shifted(tensor: torch.Tensor, offset: int) -> torch.Tensor:
    """Return the bytes of `tensor` at an address that is `offset` beyond a multiple of 64."""
    memory = torch.empty(tensor.numel() + 128, dtype=torch.uint8)
    begin = -memory.data_ptr() % 64 + offset
    return memory[begin : begin + tensor.numel()].view(tensor.shape).copy_(tensor)


def test_weights_in_a_mapped_file_at_odd_offsets(tmp_path: Path) -> None:
    """External data, as in a package: dense weights and biases that no float pointer may hold."""
    inputs = dense_inputs(mxfp4_inputs(5, 64, 96, experts=3, seed=8), torch.bfloat16)
    model = op_model("MoEDispatch", inputs, ATTRIBUTES)
    data = b"?"
    for name in ("gate_up", "gate_up_bias", "down", "down_bias"):
        value = next(value for value in model.graph.input if value.name == name)
        model.graph.input.remove(value)
        raw = inputs[name].view(torch.uint8).numpy().tobytes()
        tensor = onnx.TensorProto(
            name=name,
            data_type=value.type.tensor_type.elem_type,
            dims=inputs[name].shape,
            data_location=onnx.TensorProto.EXTERNAL,
        )
        for key, entry in (
            ("location", "weights.bin"),
            ("offset", len(data)),
            ("length", len(raw)),
        ):
            tensor.external_data.add(key=key, value=str(entry))
        model.graph.initializer.append(tensor)
        data += raw + b"?" * (len(raw) % 2 == 0)  # so that the next offset is odd
        data += b"?" * (len(data) % 2 == 0)
    (tmp_path / "weights.bin").write_bytes(data)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    session = native_session(str(tmp_path / "model.onnx"))
    (found,) = run_ort(session, {name: inputs[name] for name in ("hidden", "router_logits")})
    assert error_of(found, inputs) < NATIVE_EXPERTS["exact"]


@pytest.mark.parametrize("tokens", [1, 4, 40])
def test_no_byte_beyond_a_weight_is_read(tokens: int, tmp_path: Path) -> None:
    """Each weight ends where the next page may not be read: reading on would end the process."""
    inputs = mxfp4_inputs(tokens, 160, 96, experts=2, seed=3)
    with GuardedMemory() as memory:
        guarded = {**inputs, **{name: memory.place(inputs[name]) for name in WEIGHTS}}
        for mode in MODES:
            (found,) = run_case(native_case(inputs, mode))
            session = native_session(native_case(inputs, mode).model, {"gptoss.activations": mode})
            assert torch.equal(run_ort(session, guarded)[0], found)


class GuardedMemory:
    """Copies of tensors, each followed by a page that may not be read."""

    def __init__(self) -> None:
        self._maps: list[mmap.mmap] = []
        self._libc = ctypes.CDLL(None, use_errno=True)

    def __enter__(self) -> "GuardedMemory":
        return self

    def __exit__(self, *_: object) -> None:
        for mapping in self._maps:
            self._protect(mapping, mmap.PROT_READ | mmap.PROT_WRITE)

    def place(self, tensor: torch.Tensor) -> torch.Tensor:
        count = tensor.numel()
        room = -(-count // mmap.PAGESIZE) * mmap.PAGESIZE
        mapping = mmap.mmap(-1, room + mmap.PAGESIZE)
        self._maps.append(mapping)
        copy = torch.frombuffer(mapping, dtype=torch.uint8, count=count, offset=room - count)
        copy.copy_(tensor.reshape(-1))
        self._protect(mapping, 0)
        return copy.view(tensor.shape)

    def _protect(self, mapping: mmap.mmap, access: int) -> None:
        begin = ctypes.addressof(ctypes.c_char.from_buffer(mapping))
        last = begin + len(mapping) - mmap.PAGESIZE
        assert (
            self._libc.mprotect(ctypes.c_void_p(last), ctypes.c_size_t(mmap.PAGESIZE), access) == 0
        )


@pytest.mark.parametrize("mode", MODES)
def test_number_of_threads_changes_no_bit(mode: str) -> None:
    for tokens in (1, 33):
        inputs = mxfp4_inputs(tokens, 160, 96, experts=4, seed=6)
        one, three = (run_case(native_case(inputs, mode, threads=threads))[0] for threads in (1, 3))
        assert torch.equal(one, three)


@pytest.mark.parametrize("dense", [False, True])
def test_no_tokens_give_no_rows(dense: bool) -> None:
    inputs = mxfp4_inputs(0, 32, 32, experts=3, seed=1)
    (found,) = run_case(native_case(dense_inputs(inputs, torch.bfloat16) if dense else inputs))
    assert found.shape == (0, 32)


def test_an_expert_nobody_chose_is_not_read() -> None:
    inputs = mxfp4_inputs(6, 64, 32, experts=4, seed=2)
    inputs["router_logits"][:, 1] = -100
    inputs["gate_up_scales"][1] = 255
    inputs["down_scales"][1] = 255
    (found,) = run_case(native_case(inputs))
    assert error_of(found, inputs) < NATIVE_EXPERTS["exact"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_activation_that_is_no_number_shows_in_its_token_alone(mode: str, value: float) -> None:
    inputs = mxfp4_inputs(20, 64, 32, experts=2, seed=5)
    (clean,) = run_case(native_case(inputs, mode))
    inputs["hidden"][3, 40] = value
    (found,) = run_case(native_case(inputs, mode))
    assert not found[3].isfinite().any()
    others = [token for token in range(20) if token != 3]
    assert torch.equal(found[others], clean[others])


def wrong(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Inputs], Inputs]:
    return lambda inputs: {**inputs, name: change(inputs[name])}


def with_nan(logits: torch.Tensor) -> torch.Tensor:
    logits[2, 1] = float("nan")
    return logits


MXFP4_ERRORS = {
    r"input 'hidden': found shape \(3, 2, 64\), expected rank 2 \(N, Hd\)": wrong(
        "hidden", lambda x: x.unsqueeze(1).expand(3, 2, 64)
    ),
    r"input 'hidden': found shape \(3, 48\), expected \(N, Hd\) with Hd a multiple of 32": wrong(
        "hidden", lambda x: x[:, :48]
    ),
    r"input 'router_logits': found shape \(2, 4\), expected shape \(3, 4\) = \(N, E\)": wrong(
        "router_logits", lambda x: x[:2]
    ),
    r"input 'router_logits': found shape \(3, 1\), expected \(N, E\) with at least top_k = 2 experts": wrong(
        "router_logits", lambda x: x[:, :1]
    ),
    r"input 'router_logits': found NaN for token 2, expert 1, expected numbers": wrong(
        "router_logits", with_nan
    ),
    r"input 'gate_up_blocks': found shape \(4, 192, 1, 16\), expected shape \(4, 192, 2, 16\) = \(E, 2I, Hd/32, 16\)": (
        wrong("gate_up_blocks", lambda x: x[:, :, :1])
    ),
    r"input 'gate_up_scales': found shape \(4, 191, 2\), expected \(E, 2I, Hd/32\) with I a multiple of 32": wrong(
        "gate_up_scales", lambda x: x[:, :191]
    ),
    r"input 'gate_up_bias': found shape \(4, 190\), expected shape \(4, 192\) = \(E, 2I\)": wrong(
        "gate_up_bias", lambda x: x[:, :190]
    ),
    r"input 'down_blocks': found shape \(4, 64, 3, 8\), expected shape \(4, 64, 3, 16\) = \(E, Hd, I/32, 16\)": wrong(
        "down_blocks", lambda x: x[..., :8]
    ),
    r"input 'down_scales': found shape \(3, 64, 3\), expected shape \(4, 64, 3\) = \(E, Hd, I/32\)": wrong(
        "down_scales", lambda x: x[:3]
    ),
    r"input 'down_bias': found shape \(4, 65\), expected shape \(4, 64\) = \(E, Hd\)": wrong(
        "down_bias", lambda x: torch.cat((x, x[:, :1]), dim=1)
    ),
}


@pytest.mark.parametrize("message", MXFP4_ERRORS, ids=lambda message: message.split("'")[1])
def test_wrong_input_is_an_error_that_names_op_input_found_and_expected(message: str) -> None:
    inputs = MXFP4_ERRORS[message](mxfp4_inputs(3, 64, 96, experts=4, seed=1))
    assert_refused(inputs, "MoEDispatchMXFP4: " + message)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "gate_up",
            lambda x: x[:, :, :191],
            r"found shape \(4, 64, 191\), expected \(E, Hd, 2I\) with I at least 1",
        ),
        (
            "down",
            lambda x: x[:, :95],
            r"found shape \(4, 95, 64\), expected shape \(4, 96, 64\) = \(E, I, Hd\)",
        ),
    ],
)
def test_wrong_dense_input_is_an_error(
    name: str, change: Callable[[torch.Tensor], torch.Tensor], message: str
) -> None:
    inputs = dense_inputs(mxfp4_inputs(3, 64, 96, experts=4, seed=1), torch.float16)
    assert_refused(wrong(name, change)(inputs), f"MoEDispatch: input '{name}': {message}")


def assert_refused(inputs: Inputs, message: str, **attributes: float) -> None:
    with pytest.raises(RuntimeError, match=message):  # the bound run wraps the status
        run_case(native_case(inputs, **attributes))


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"top_k": 0}, "attribute 'top_k': found 0, expected at least 1"),
        ({"alpha": float("inf")}, "attribute 'alpha': found inf, expected a finite number"),
        ({"limit": -1.0}, "attribute 'limit': found -1.000000, expected at least 0"),
    ],
)
def test_senseless_attribute_is_an_error(attributes: Mapping[str, float], message: str) -> None:
    with pytest.raises(Exception, match=f"MoEDispatchMXFP4: {message}"):
        run_case(native_case(mxfp4_inputs(1, 32, 32, experts=2, seed=1), **attributes))


def test_unknown_activation_mode_is_refused_at_registration() -> None:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("gptoss.activations", "fp4")
    with pytest.raises(
        Exception, match=r"'gptoss\.activations': found 'fp4', expected one of exact, bf16, int8"
    ):
        options.register_custom_ops_library(str(LIBRARY))


def test_sessions_of_different_modes_live_side_by_side() -> None:
    inputs = mxfp4_inputs(2, 320, 64, experts=2, seed=7)
    sessions = {
        mode: native_session(native_case(inputs).model, {"gptoss.activations": mode})
        for mode in MODES
    }
    errors = [error_of(run_ort(sessions[mode], inputs)[0], inputs) for mode in MODES]
    assert errors == sorted(errors)
    assert np.all(np.array(errors) < [NATIVE_EXPERTS[mode] for mode in MODES])
