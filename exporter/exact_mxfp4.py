"""Whether dense experts are MXFP4 that was widened: they could be packed again without loss.

A block of 32 numbers is MXFP4 if all of them are levels 0, 0.5, 1, 1.5, 2, 3, 4 or 6, of either
sign, times one power of two.
"""

from gptoss_onnx.custom_ops.mxfp4 import BLOCK
from gptoss_onnx.custom_ops.mxfp4_native import is_exact
from gptoss_onnx.progress import Progress
from gptoss_onnx.reference.checkpoint import Checkpoint
from gptoss_onnx.reference.config import ExpertsConfig

PIECE = 1 << 20  # numbers read together


def first_inexact(checkpoint: Checkpoint, progress: Progress) -> str | None:
    """Return the first matrices of dense experts that are not MXFP4; None if all are.

    Reads them, a piece at a time, until it finds one; `progress` hears of the bytes.
    """
    named = dense_experts(checkpoint)
    total = sum(checkpoint.parameters[name].stored_nbytes for name in named)
    progress.begin("looking for MXFP4 in the experts", total)
    for name, columns in named.items():
        parameter = checkpoint.parameters[name]
        depth, width = parameter.shape[-2 if columns else -1], parameter.shape[-1]
        if depth % BLOCK:
            return parameter.name
        step = max(1, PIECE // width // BLOCK) * BLOCK  # whole blocks, whichever way they lie
        each = parameter.stored_nbytes / parameter.rows
        for first in range(0, parameter.rows, step):
            end = min(first + step, parameter.rows)
            if not is_exact(checkpoint.load_rows(parameter, first, end), columns=columns):
                return parameter.name
            progress.advance(round((end - first) * each))
    return None


def dense_experts(checkpoint: Checkpoint) -> dict[str, bool]:
    """Return the decoder's names of the experts' matrices that are not packed, and of each whether
    its columns are what an expert multiplies.
    """
    found = {}
    for index, layer in enumerate(checkpoint.config.layers):
        experts = layer.feed_forward
        if isinstance(experts, ExpertsConfig) and experts.storage != "mxfp4":
            for name in ("gate_up_proj", "down_proj"):
                path = f"model.layers.{index}.mlp.experts.{name}"
                found[path] = experts.storage == "columns"
    return found
