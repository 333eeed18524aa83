"""MXFP4 decoding: blocks of 32 E2M1 values that share one E8M0 scale.

Format: OCP Microscaling Formats (MX) Specification v1.0, sections 5.3.3 (E2M1) and 5.4.1 (E8M0), in
    the byte order
gpt-oss checkpoints use: the low nibble of a byte comes first.

Legend: R rows (any leading dims), G blocks a row, 32 values a block, 16 bytes a block.
"""

import torch

BLOCK = 32
BYTES_PER_BLOCK = BLOCK // 2
SCALE_BIAS = 127
SCALE_NAN = 255
LEVELS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)

_BYTES = torch.arange(256)
BYTE_TO_LEVELS = torch.tensor(LEVELS)[torch.stack((_BYTES & 15, _BYTES >> 4), dim=-1)]  # (256, 2)
_BYTE_TO_PAIR = BYTE_TO_LEVELS.view(torch.int64)[:, 0].contiguous()  # (256), two float32 in one
# 2^(scale − 127) by ldexp from float64: 2^-127 is subnormal in float32, and exp2 may flush it to
# zero.
SCALE_TO_FACTOR = torch.ldexp(torch.ones(256, dtype=torch.float64), _BYTES - SCALE_BIAS).float()
SCALE_TO_FACTOR[SCALE_NAN] = float("nan")
# (256), two in one
_BYTE_TO_INTEGERS = (2 * BYTE_TO_LEVELS + 128).to(torch.uint8).view(torch.int16)[:, 0]


def decode_mxfp4(
    blocks: torch.Tensor, scales: torch.Tensor, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """Return the values of MXFP4 weights: level × 2^(scale − 127), exact in float32 for the scales
    models use.

    Args:
        blocks: uint8 (R…, G, 16), two E2M1 values a byte, low nibble first.
        scales: uint8 (R…, G), E8M0; 255 decodes to NaN, as the specification says.
        dtype: floating dtype of the result.

    Returns:
        (R…, G·32) of `dtype`.
    """
    # index_select takes a third of the time of a table indexed by a tensor
    pairs = _BYTE_TO_PAIR.to(blocks.device).index_select(0, blocks.flatten().int())
    values: torch.Tensor = pairs.view(torch.float32).unflatten(
        0, (*scales.shape, BLOCK)
    )  # (R, G, 32)
    values *= SCALE_TO_FACTOR.to(scales.device)[scales.int()].unsqueeze(-1)
    return values.flatten(-2).to(dtype)


def mxfp4_as_uint8(blocks: torch.Tensor) -> torch.Tensor:
    """Return MXFP4 values as 8-bit integers around 128, exactly: 128 + 2 × level, in blocks of 32
    as they were.

    With the scales of `mxfp4_uint8_scales`, (integer − 128) × scale is the value that
    `decode_mxfp4` gives.

    Args:
        blocks: uint8 (R…, 16), two E2M1 values a byte, low nibble first.

    Returns:
        uint8 (R…, 32).
    """
    return _BYTE_TO_INTEGERS.to(blocks.device)[blocks.int()].view(torch.uint8)


def mxfp4_uint8_scales(scales: torch.Tensor) -> torch.Tensor:
    """Return the float32 scales that go with `mxfp4_as_uint8`: 2^(scale − 128), NaN for 255; the
    shape stays.
    """
    return SCALE_TO_FACTOR.to(scales.device)[scales.int()] / 2


def mxfp4_by_column(blocks: torch.Tensor) -> torch.Tensor:
    """Return MXFP4 values with neighbours along N, not along K, in a byte: the layout of ONNX
    Runtime's CUDA kernels.

    The 4-bit codes are the same, and so are the scales that go with them.

    Args:
        blocks: uint8 (N, G, 16), two E2M1 values a byte, low nibble first; K = G·32.

    Returns:
        uint8 (K, N/2); the low nibble of byte (k, n) is value (2n, k), the high nibble value (2n +
        1, k).
    """
    codes = torch.stack((blocks & 15, blocks >> 4), dim=-1).flatten(1).T  # (K, N)
    return codes[:, 0::2] | (codes[:, 1::2] << 4)
