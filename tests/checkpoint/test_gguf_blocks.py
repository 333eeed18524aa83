"""What becomes of GGUF's blocks, held to the `gguf` package's own decoding of the same bytes."""

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gptoss_onnx.checkpoint.gguf.blocks import (
    MXFP4,
    Q8_0,
    Alternating,
    ColumnsOfExperts,
    Mxfp4Blocks,
    Mxfp4Experts,
    Mxfp4Scales,
    Q8Rows,
    neighbours,
)
from gptoss_onnx.checkpoint.gguf.kinds import KINDS, OLLAMA_MXFP4, kind_name
from gptoss_onnx.checkpoint.tensors import TensorInfo
from gptoss_onnx.custom_ops.linear_int8 import dequantize_int8
from gptoss_onnx.custom_ops.mxfp4 import decode_mxfp4
from gptoss_onnx.errors import CheckpointError
from support.held_tensors import HeldTensors

EXPERTS, ROWS, BLOCKS = 3, 5, 2


def stored(content: dict[str, Tensor], dtype: str) -> tuple[TensorInfo, ...]:
    """Return infos whose tensors `content.get` loads by name."""
    return tuple(
        TensorInfo(name, dtype, tuple(tensor.shape), Path("x.gguf"), 0, tensor.nbytes)
        for name, tensor in content.items()
    )


def raw(seed: int, nbytes: int, *axes: int) -> Tensor:
    """Return random blocks whose scales are all finite and far from the ends."""
    random = np.random.default_rng(seed)
    blocks = random.integers(0, 256, (*axes, nbytes), np.uint8)
    if nbytes == 17:
        blocks[..., 0] = random.integers(100, 140, axes, np.uint8)
    else:
        scales = random.standard_normal(axes).astype(np.float16)
        blocks[..., :2] = scales[..., None].view(np.uint8)
    return torch.from_numpy(blocks)


def values(blocks: Tensor, kind: Kind) -> Tensor:
    """Return what the `gguf` package reads, (…, 32·blocks)."""
    flat = blocks.flatten(-2).numpy()
    return torch.from_numpy(np.array(gguf.quants.dequantize(flat, kind), np.float32))


@pytest.mark.parametrize("names", [("gate", "up"), ("down",)])
def test_every_value_of_mxfp4_is_kept(names: tuple[str, ...]) -> None:
    content = {name: raw(seed, 17, EXPERTS, ROWS, BLOCKS) for seed, name in enumerate(names)}
    experts = Mxfp4Experts(stored(content, MXFP4))
    load = HeldTensors(content)
    rows = EXPERTS * ROWS * len(names)
    blocks = Mxfp4Blocks(experts).rows(load, 0, rows * BLOCKS)
    scales = Mxfp4Scales(experts).rows(load, 0, rows)
    found = decode_mxfp4(
        blocks.reshape(EXPERTS, -1, BLOCKS, 16), scales.reshape(EXPERTS, -1, BLOCKS)
    )
    expected = torch.stack([values(part, Kind.MXFP4) for part in content.values()], 2).flatten(1, 2)
    assert torch.equal(found, expected)
    for first, end in ((0, 1), (3, 8), (7, rows * BLOCKS), (rows, rows)):
        assert torch.equal(Mxfp4Blocks(experts).rows(load, first, end), blocks[first:end])
    for first, end in ((0, 1), (1, 4), (3, rows)):
        assert torch.equal(Mxfp4Scales(experts).rows(load, first, end), scales[first:end])


def test_mxfp4_of_ollama_has_the_bytes_of_hugging_face() -> None:
    blocks = raw(5, 17, EXPERTS, ROWS, BLOCKS)
    experts = Mxfp4Experts(stored({"both": blocks}, OLLAMA_MXFP4))
    found, scales = experts.matrix_rows(HeldTensors({"both": blocks}), 0, EXPERTS * ROWS)
    assert torch.equal(found, blocks[..., 1:].flatten(0, 1))
    assert torch.equal(scales, blocks[..., 0].flatten(0, 1))


@given(st.binary(min_size=16, max_size=16))
def test_nibbles_change_places_and_no_value(content: bytes) -> None:
    halves = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    codes = torch.cat([halves & 15, halves >> 4])  # 32 values
    found = neighbours(halves.unsqueeze(0))[0]
    assert torch.equal(torch.stack([found & 15, found >> 4], 1).flatten(), codes)


@given(st.integers(0, 0xFFFF), st.integers(-128, 127))
def test_a_scale_of_float16_times_an_integer_is_exact_in_float32(bits: int, code: int) -> None:
    scale = np.array([bits], np.uint16).view(np.float16)
    if not np.isfinite(scale[0]):
        return
    block = np.concatenate([scale.view(np.uint8), np.full(32, code, np.int8).view(np.uint8)])
    tensor = torch.from_numpy(block.reshape(1, 1, 34))
    (info,) = stored({"q": tensor}, Q8_0)
    codes, scales = Q8Rows(info).codes(HeldTensors({info.name: tensor}), 0, 1)
    assert scales.dtype == torch.float32 and codes.dtype == torch.int8
    exact = float(scale[0]) * code  # in 53 bits
    assert dequantize_int8(codes, scales)[0, 0].item() == exact
    assert Q8Rows(info).rows(HeldTensors({info.name: tensor}), 0, 1)[0, 31].item() == exact


def test_q8_rows_are_those_of_the_package_and_of_linear_int8() -> None:
    tensor = raw(1, 34, 40, 3)
    (info,) = stored({"q": tensor}, Q8_0)
    expected = values(tensor, Kind.Q8_0)
    assert torch.equal(Q8Rows(info).rows(HeldTensors({info.name: tensor}), 0, 40), expected)
    codes, scales = Q8Rows(info).codes(HeldTensors({info.name: tensor}), 11, 29)
    assert torch.equal(dequantize_int8(codes, scales), expected[11:29])


@pytest.mark.parametrize("kind", [Kind.Q8_0, Kind.F16, Kind.F32])
@pytest.mark.parametrize("names", [("gate", "up"), ("down",)])
def test_dense_experts_are_transposed(names: tuple[str, ...], kind: Kind) -> None:
    random = np.random.default_rng(2)
    content, matrices = {}, []
    for name in names:
        matrix = random.standard_normal((EXPERTS, ROWS, 64)).astype(np.float32)
        coded = gguf.quants.quantize(matrix, kind)
        matrices.append(torch.from_numpy(np.array(gguf.quants.dequantize(coded, kind), np.float32)))
        tensor = torch.from_numpy(coded)
        content[name] = tensor.unflatten(-1, (2, 34)) if kind == Kind.Q8_0 else tensor
    computation = ColumnsOfExperts(stored(content, kind.name))
    expected = torch.stack(matrices, 2).flatten(1, 2).mT.flatten(0, 1)  # (E·64, R)
    if kind == Kind.Q8_0:
        expected = expected.bfloat16()
        assert computation.loss is not None
    for first, end in ((0, EXPERTS * 64), (5, 37), (60, 130), (64, 65)):
        found = computation.rows(HeldTensors(content), first, end)
        assert torch.equal(found.to(expected.dtype), expected[first:end])


def test_biases_of_gates_and_ups_alternate() -> None:
    content = {"gate": torch.arange(6.0).reshape(2, 3), "up": 10 + torch.arange(6.0).reshape(2, 3)}
    gate, up = stored(content, "F32")
    found = Alternating((gate, up)).rows(HeldTensors(content), 1, 2)
    assert found.tolist() == [[3, 13, 4, 14, 5, 15]]


def test_scales_that_are_not_numbers_are_refused() -> None:
    blocks = raw(3, 17, EXPERTS, ROWS, BLOCKS)
    blocks[1, 2, 1, 0] = 255
    experts = Mxfp4Experts(stored({"blk.0.ffn_down_exps.weight": blocks}, MXFP4))
    with pytest.raises(CheckpointError, match=r"blk.0.ffn_down_exps.weight: a NaN scale \(255\)"):
        experts.matrix_rows(HeldTensors({experts.parts[0].name: blocks}), 0, EXPERTS * ROWS)
    tensor = raw(4, 34, 8, 2)
    tensor[3, 1, :2] = torch.tensor([0, 0x7C], dtype=torch.uint8)  # infinity
    (info,) = stored({"output.weight": tensor}, Q8_0)
    with pytest.raises(CheckpointError, match=r"output.weight: a scale that is not finite"):
        Q8Rows(info).rows(HeldTensors({info.name: tensor}), 0, 8)


def test_types_have_the_numbers_and_sizes_of_ggml() -> None:
    for kind in Kind:
        assert kind_name(kind) == kind.name
    for number, found in KINDS.items():
        if found.name == OLLAMA_MXFP4:
            continue  # ggml has no such number any more
        assert (found.block, found.nbytes) == gguf.GGML_QUANT_SIZES[Kind(number)]
