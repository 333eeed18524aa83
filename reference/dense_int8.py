"""The reference with the very 8-bit projections that a package of `export --dense int8` has.

Such a package keeps the projections' weights in one safetensors file of its own: `weight_int8` (M,
K) and `weight_scales` (M, K/32) behind the name of each projection. Legend: N tokens, K input
width, M output width.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from gptoss_onnx.checkpoint.stored_file import StoredFile
from gptoss_onnx.custom_ops.linear_int8 import BLOCK
from gptoss_onnx.reference.decoder import Decoder
from gptoss_onnx.reference.layers import Linear

# a projection of its own in that file, also where the checkpoint ties it to the embedding
LM_HEAD = "lm_head"
_WEIGHT, _SCALES = "weight_int8", "weight_scales"


def int8_names(projection: str) -> tuple[str, str]:
    """Return the names of a projection's weight and scales, for instance of
    `model.layers.0.self_attn.q_proj`.
    """
    return f"{projection}.{_WEIGHT}", f"{projection}.{_SCALES}"


class LinearInt8(nn.Module):
    """A projection (N, K) → (N, M) on 8-bit weights, with the bias of the one it replaces."""

    def __init__(self, weight: Tensor, scales: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("scales", scales)
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        """Project (N, K) to (N, M)."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return torch.ops.gptoss.linear_int8(x, self.weight, self.scales, bias)  # type: ignore[no-any-return]


def use_dense_int8(model: Decoder, file: Path) -> Decoder:
    """Replace in `model` the projections that `file` has, mapped from it; returns the model.

    Raises PackageError where the file cannot be read, or holds something else than projections of
    this model.
    """
    stored = StoredFile(file)
    projections = [
        name.removesuffix(f".{_WEIGHT}") for name in stored.names if name.endswith(f".{_WEIGHT}")
    ]
    expected = {name for projection in projections for name in int8_names(projection)}
    if not projections or set(stored.names) != expected:
        raise stored.error("found other tensors than 8-bit projections")
    modules = dict(model.named_modules())
    for projection in projections:
        replaced = modules.get(projection)
        if not isinstance(replaced, Linear) and projection != LM_HEAD:
            raise stored.error(f"{projection}: the model has no such projection")
        # A tied lm_head multiplies by the embedding.
        shape = tuple(
            (replaced if isinstance(replaced, Linear) else model.model.embed_tokens).weight.shape
        )
        if isinstance(replaced, Linear) and replaced.transposed:
            shape = shape[::-1]
        weight_name, scales_name = int8_names(projection)
        module = LinearInt8(
            stored.tensor(weight_name, torch.int8, shape),
            stored.tensor(scales_name, torch.float32, (shape[0], shape[1] // BLOCK)),
            replaced.bias if isinstance(replaced, Linear) else None,
        )
        parent = model.get_submodule(projection.rpartition(".")[0])
        setattr(parent, projection.rpartition(".")[2], module.requires_grad_(False).eval())
    return model
