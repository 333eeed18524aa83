"""The reference with the very 4-bit experts that a package of `export --experts int4` has.

Such a package keeps them in its weight file: `…_int4` (E, R, C/2) and `…_int4_scales` (E, R, C/32)
behind the name that the checkpoint's tensors have before `_blocks`. Legend: N tokens, E experts, R
rows, C columns of a matrix.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from gptoss_onnx.checkpoint.stored_file import StoredFile
from gptoss_onnx.custom_ops.moe_dispatch import dispatch
from gptoss_onnx.custom_ops.mxfp4_int4 import decode_int4
from gptoss_onnx.reference.decoder import Decoder
from gptoss_onnx.reference.layers import MixtureOfExperts

MATRICES = ("gate_up", "gate_up_scales", "down", "down_scales")
EXPERTS_INT4 = "experts in int4 (block 32)"  # what a manifest calls lossy then


def int4_names(stem: str) -> tuple[str, str]:
    """Return the names of a matrix's codes and scales; `stem` as in
    `model.layers.0.mlp.experts.down_proj`.
    """
    return f"{stem}_int4", f"{stem}_int4_scales"


class MixtureOfExpertsInt4(nn.Module):
    """Router and biases of the mixture that it replaces, on 4-bit weights that are decoded expert
    by expert.
    """

    def __init__(
        self,
        replaced: MixtureOfExperts,
        gate_up: tuple[Tensor, Tensor],
        down: tuple[Tensor, Tensor],
    ) -> None:
        super().__init__()
        self.router, self.attributes = replaced.router, replaced.attributes
        self.gate_up_bias, self.down_bias = (
            replaced.experts.gate_up_proj_bias,
            replaced.experts.down_proj_bias,
        )
        for name, tensor in zip(MATRICES, (*gate_up, *down), strict=True):
            self.register_buffer(name, tensor)

    def forward(self, x: Tensor) -> Tensor:
        """Send each token of (N, hidden) through its top-k experts."""

        def weights(expert: int) -> tuple[Tensor, Tensor]:
            gate_up, gate_up_scales, down, down_scales = (
                self.get_buffer(name)[expert] for name in MATRICES
            )
            return decode_int4(gate_up, gate_up_scales, x.dtype).T, decode_int4(
                down, down_scales, x.dtype
            ).T

        biases = (self.gate_up_bias, self.down_bias)
        return dispatch(x, self.router(x), weights, *biases, self.attributes)


def use_experts_int4(model: Decoder, file: Path) -> Decoder:
    """Replace in `model` the experts by those of `file`, mapped from it; returns the model.

    Raises PackageError where the file cannot be read, or lacks the experts of this model.
    """
    stored = StoredFile(file)

    def matrix(stem: str, blocks: Tensor) -> tuple[Tensor, Tensor]:
        count, rows, columns, width = blocks.shape  # (E, R, C/32, 16)
        codes, scales = int4_names(stem)
        return (
            stored.tensor(codes, torch.uint8, (count, rows, columns * width)),
            stored.tensor(scales, torch.float32, (count, rows, columns)),
        )

    for name, mlp in list(model.named_modules()):
        if isinstance(mlp, MixtureOfExperts):
            if mlp.config.storage != "mxfp4":
                raise stored.error(
                    "experts in 4 bits are made from MXFP4, and this checkpoint's are not"
                )
            gate_up = matrix(f"{name}.experts.gate_up_proj", mlp.experts.gate_up_proj_blocks)
            down = matrix(f"{name}.experts.down_proj", mlp.experts.down_proj_blocks)
            model.set_submodule(name, MixtureOfExpertsInt4(mlp, gate_up, down).eval())
    return model
