"""The native MoE kernels on weights wherever they may lie: at any address, in mapped files, at the
end of memory.
"""

import ctypes
import mmap
from pathlib import Path

import onnx
import pytest
import torch

from support.moe_cases import ATTRIBUTES, MODES, error_of, native_case
from support.moe_inputs import dense_inputs, laid_out, mxfp4_inputs
from support.native_levels import native_session, needs_native, run_case
from support.op_models import op_model, run_ort
from support.tolerances import NATIVE_EXPERTS

pytestmark = needs_native

WEIGHTS = ("gate_up_blocks", "gate_up_scales", "down_blocks", "down_scales")


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


@pytest.mark.parametrize("transposed", [0, 1])
def test_weights_in_a_mapped_file_at_odd_offsets(transposed: int, tmp_path: Path) -> None:
    """External data, as in a package: dense weights and biases that no float pointer may hold."""
    dense = dense_inputs(mxfp4_inputs(5, 64, 96, experts=3, seed=8), torch.bfloat16)
    inputs = laid_out(dense, transposed=transposed)
    model = op_model("MoEDispatch", inputs, {**ATTRIBUTES, "transposed": transposed})
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
    assert error_of(found, inputs, transposed=transposed) < NATIVE_EXPERTS["exact"]


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


@pytest.mark.parametrize("tokens", [1, 40, 80])
@pytest.mark.parametrize("transposed", [0, 1])
def test_no_byte_beyond_a_dense_weight_is_read(tokens: int, transposed: int) -> None:
    """Widths that fill no register; 80 tokens are more than a group may have one by one."""
    inputs = dense_inputs(mxfp4_inputs(tokens, 96, 32, experts=2, seed=3), torch.bfloat16)
    inputs = {**inputs, "hidden": inputs["hidden"][:, :83].contiguous()}
    inputs |= {name: inputs[name][:, :83] for name in ("gate_up", "down_bias")}
    inputs |= {"down": inputs["down"][..., :83]}
    inputs = laid_out({name: x.contiguous() for name, x in inputs.items()}, transposed=transposed)
    with GuardedMemory() as memory:
        guarded = dict(inputs)
        for name in ("gate_up", "down"):
            raw = inputs[name].view(torch.uint8)
            guarded[name] = memory.place(raw).view(torch.bfloat16)
        case = native_case(inputs, transposed=transposed)
        (found,) = run_case(case)
        assert torch.equal(run_ort(native_session(case.model), guarded)[0], found)


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
