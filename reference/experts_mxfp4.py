"""The reference with the very MXFP4 experts that a package of `export --experts mxfp4` has.

Such a package keeps them in a weight file: `…_blocks` (E, R, C/32, 16) and `…_scales` (E, R, C/32)
behind the decoder's name of each weight, gate and up rows in turns. Legend: E experts, R rows, C
columns of a matrix.
"""

import dataclasses
from pathlib import Path

import torch
from torch import nn

from gptoss_onnx.checkpoint.stored_file import StoredFile
from gptoss_onnx.reference.decoder import Decoder
from gptoss_onnx.reference.layers import ExpertWeights, MixtureOfExperts

EXPERTS_MXFP4 = "experts in MXFP4 (block 32)"  # what a manifest calls lossy then
_BIASES = ("gate_up_proj_bias", "down_proj_bias")


def mxfp4_names(weight: str) -> tuple[str, str]:
    """Return the names of a weight's blocks and scales, for instance of
    `model.layers.0.mlp.experts.down_proj`.
    """
    return f"{weight}_blocks", f"{weight}_scales"


def use_experts_mxfp4(model: Decoder, file: Path) -> Decoder:
    """Replace in `model` the experts by those of `file`, mapped from it; returns the model.

    Experts that are MXFP4 stay: those of layers that no adapter touches. Raises PackageError where
    all are, and where the file cannot be read, or lacks the experts of this model.
    """
    stored = StoredFile(file)
    mixtures = [
        (name, mlp)
        for name, mlp in model.named_modules()
        if isinstance(mlp, MixtureOfExperts) and mlp.config.storage != "mxfp4"
    ]
    if not mixtures:
        raise stored.error("experts that are rounded to MXFP4 are MXFP4 in this checkpoint")
    for name, mlp in mixtures:
        config = dataclasses.replace(mlp.config, storage="mxfp4", interleaved=True)
        with torch.device("meta"):
            new = MixtureOfExperts(model.config.hidden_size, config)
        new.router = mlp.router
        _fill(new.experts, stored, f"{name}.experts", mlp)
        model.set_submodule(name, new.requires_grad_(False).eval())
    return model


def _fill(weights: ExpertWeights, stored: StoredFile, name: str, old: MixtureOfExperts) -> None:
    """Give `weights`, which are on the meta device, those of the file and the biases of `old`."""
    for key, parameter in list(weights.named_parameters()):
        if key in _BIASES:
            tensor = getattr(old.experts, key)
        else:
            tensor = stored.tensor(f"{name}.{key}", torch.uint8, tuple(parameter.shape))
        setattr(weights, key, nn.Parameter(tensor, requires_grad=False))
    if weights.gate_up_proj_bias is not None and _in_halves(old):
        weights.gate_up_proj_bias.data = (
            weights.gate_up_proj_bias.unflatten(1, (2, -1)).mT.flatten(1)  # (E, 2I), in turns
        )


def _in_halves(old: MixtureOfExperts) -> bool:
    return old.config.activation == "swiglu" and not old.config.interleaved
