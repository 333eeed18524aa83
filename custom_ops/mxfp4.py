"""MXFP4 decoding: blocks of 32 E2M1 values that share one E8M0 scale.

Format: OCP Microscaling Formats (MX) Specification v1.0, sections 5.3.3 (E2M1) and 5.4.1 (E8M0), in the byte order
gpt-oss checkpoints use: the low nibble of a byte comes first.

Legend: R rows (any leading dims), G blocks a row, 32 values a block, 16 bytes a block.
"""

import torch

BLOCK = 32
BYTES_PER_BLOCK = BLOCK // 2
SCALE_BIAS = 127
SCALE_NAN = 255
LEVELS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)


def decode_mxfp4(
    blocks: torch.Tensor, scales: torch.Tensor, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """Return the values of MXFP4 weights: level × 2^(scale − 127), exact in float32 for the scales models use.

    Args:
        blocks: uint8 (R…, G, 16), two E2M1 values a byte, low nibble first.
        scales: uint8 (R…, G), E8M0; 255 decodes to NaN, as the specification says.
        dtype: floating dtype of the result.

    Returns:
        (R…, G·32) of `dtype`.
    """
    levels = torch.tensor(LEVELS, dtype=torch.float32, device=blocks.device)
    pairs = torch.stack((levels[(blocks & 15).long()], levels[(blocks >> 4).long()]), dim=-1)  # (R, G, 16, 2)
    factors = _scale_factors(blocks.device)[scales.long()]  # (R, G)
    values = pairs.flatten(-2) * factors.unsqueeze(-1)  # (R, G, 32)
    return values.flatten(-2).to(dtype)


def _scale_factors(device: torch.device) -> torch.Tensor:
    """Return 2^(scale − 127) for every byte, float32 (256,); 2^-127 is subnormal, so no exp2 that may flush it."""
    exponents = torch.arange(256, dtype=torch.int32) - SCALE_BIAS
    factors = torch.ldexp(torch.ones(256, dtype=torch.float64), exponents).float()
    factors[SCALE_NAN] = float("nan")
    return factors.to(device)
