"""Numbers on which the native quantizer could differ from its definition, and the comparison.

`python -m support.mxfp4_cases` compares all of them at the CPU level that GPTOSS_CPU_LEVEL says.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gptoss_onnx.custom_ops.library import library_info
from gptoss_onnx.custom_ops.mxfp4 import SCALE_NAN, decode_mxfp4
from gptoss_onnx.custom_ops.mxfp4_native import decode, is_exact, quantize
from gptoss_onnx.custom_ops.mxfp4_quantize import is_mxfp4, quantize_mxfp4
from support.tolerances import SUMS_IN_ANY_ORDER

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# What is added to normally distributed numbers, or done with them, by the name of the case.
CASES: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "normal": lambda x, _: x,
    "zeros": lambda x, g: x * (torch.rand(x.shape, generator=g) < 0.05),
    "all sizes": lambda x, g: x * torch.randint(-140, 127, x.shape, generator=g).exp2(),
    "any bits": lambda x, g: torch.randint(-(2**31), 2**31, x.shape, generator=g)
    .int()
    .view(torch.float32),
    "ties": lambda x, g: torch.randint(-28, 29, x.shape, generator=g) / 4,
    "denormal": lambda x, g: x * torch.randint(-149, -120, (len(x), 1), generator=g).exp2(),
    "exact": lambda x, _: decode_mxfp4(*_encoded(x)),
    "nearly exact": lambda x, g: decode_mxfp4(*_encoded(x))
    * (1 + 2.0**-20 * (torch.rand(x.shape, generator=g) < 0.01)),
}  # fmt: skip


def _encoded(weight: Tensor) -> tuple[Tensor, Tensor]:
    found = quantize_mxfp4(weight)
    return found.blocks, found.scales


def made(case: str, rows: int, groups: int, dtype: torch.dtype, seed: int) -> Tensor:
    """Return the numbers of a case, (rows, groups · 32)."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randn(rows, 32 * groups, generator=generator)
    return CASES[case](numbers, generator).to(dtype)


def check(weight: Tensor, *, columns: bool) -> None:
    """Hold what the library makes of (R, C), or of its transpose, to the definition."""
    matrix = weight.T.contiguous() if columns else weight
    ours, expected = quantize(matrix, columns=columns), quantize_mxfp4(matrix, columns=columns)
    assert torch.equal(ours.scales, expected.scales)
    finite = expected.scales != SCALE_NAN
    assert torch.equal(ours.blocks[finite], expected.blocks[finite])
    if finite.all():
        assert (ours.lost == 0) == (expected.lost == 0)
        assert ours.lost == pytest.approx(expected.lost, rel=SUMS_IN_ANY_ORDER, abs=0)
        assert ours.total == pytest.approx(expected.total, rel=SUMS_IN_ANY_ORDER, abs=0)
    assert is_exact(matrix, columns=columns) == is_mxfp4(matrix, columns=columns)


def check_every_code() -> None:
    """Hold the decoder to the definition; a scale of 255 is NaN."""
    codes = torch.arange(256, dtype=torch.uint8).view(1, 16, 16).expand(256, 16, 16)
    scales = torch.arange(256, dtype=torch.uint8).view(256, 1).expand(256, 16)
    ours, expected = decode(codes, scales), decode_mxfp4(codes, scales)
    assert torch.equal(ours[:255].view(torch.int32), expected[:255].view(torch.int32))
    assert ours[255].isnan().all()


if __name__ == "__main__":
    for name in CASES:
        for element in DTYPES:
            for turned in (False, True):
                check(made(name, 13, 5, element, 0), columns=turned)
    check_every_code()
    print(library_info().cpu_level)
