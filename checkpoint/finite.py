"""Look for weights that are not numbers: the first thing to rule out when two models disagree."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gptoss_onnx.checkpoint.gguf.blocks import E8M0_NAN, scales_of
from gptoss_onnx.checkpoint.open import StoredCheckpoint
from gptoss_onnx.checkpoint.tensors import TensorInfo
from gptoss_onnx.progress import Progress

CHUNK = 1 << 20  # elements looked at together: small enough to stay in cache
_ALWAYS_FINITE = "_blocks"  # of MXFP4: every byte is two numbers


def bytes_checked(checkpoint: StoredCheckpoint[Any], whole: bool = True) -> int:
    """Return how many bytes `first_non_finite` reads of a checkpoint without a fault."""
    return sum(info.nbytes for info, _ in _tensors(checkpoint, whole))


def first_non_finite(
    checkpoint: StoredCheckpoint[Any], progress: Progress | None = None, whole: bool = True
) -> str | None:
    """Return where the first NaN or infinity of a checkpoint is, or None when every weight is
    finite.

    Reads all float tensors and the scales of MXFP4 and Q8_0 (a scale byte of 255 is NaN; every
    block byte is a number), one mapped tensor at a time, and tells `progress` the bytes. The text
    names tensor, index, file and value. Unless `whole`, it reads those of adapters alone.
    """
    for info, file in _tensors(checkpoint, whole):
        tensor = scales_of(checkpoint.load_tensor(info), info.dtype)
        at = _first_bad(tensor.reshape(-1))
        if progress is not None:
            progress.advance(info.nbytes)
        if at is not None:
            is_byte = tensor.dtype == torch.uint8
            value = "a NaN scale (255)" if is_byte else str(tensor.reshape(-1)[at].item())
            index = [int(i) for i in torch.unravel_index(torch.tensor(at), tensor.shape)]
            return f"{info.name}{index} in {file} is {value}"
    return None


def _tensors(
    checkpoint: StoredCheckpoint[Any], whole: bool
) -> Iterator[tuple[TensorInfo, str | Path]]:
    """Yield the tensors that may hold what is no number, and what their files are called."""
    for name, info in checkpoint.tensors.items() if whole else ():
        if not name.endswith(_ALWAYS_FINITE):
            yield info, checkpoint.file_names[info.file]
    for adapter in checkpoint.adapters:
        for info in adapter.shards.tensors.values():
            yield info, adapter.folder.path / adapter.shards.files[info.file]


def _first_bad(flat: Tensor) -> int | None:
    """Index of the first element that is not finite."""
    for number, chunk in enumerate(flat.split(CHUNK)):
        if flat.dtype == torch.float8_e4m3fn:
            chunk = chunk.float()
        if flat.dtype == torch.uint8:
            suspicious = bool(chunk.max() == E8M0_NAN)
        else:
            suspicious = not bool(torch.isfinite(torch.stack(torch.aminmax(chunk))).all())
        if suspicious:
            bad = chunk == E8M0_NAN if flat.dtype == torch.uint8 else ~torch.isfinite(chunk)
            return number * CHUNK + int(bad.nonzero()[0])
    return None
