"""Quantized checkpoints by their tensors: which scheme it is that is not read, in one line.

What config.json says of a quantization is in `quantization.py`. Merging tools lose it at times, and
some vendors keep it in another file; the tensors tell it all the same. Names are those that
bitsandbytes, ModelOpt, compressed-tensors, AutoGPTQ and AutoAWQ write.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any

from gptoss_onnx.checkpoint.tensors import TensorInfo
from gptoss_onnx.errors import CheckpointError
from gptoss_onnx.reference.quantization import FP8_SCALE

# The first that the name of some tensor ends in counts.
_SCHEMES = (
    (r"\.(absmax|quant_map|nested_absmax|nested_quant_map|SCB)", "bitsandbytes"),
    (r"\.quant_state\.[^.]+", "bitsandbytes"),
    (r"[._]weight_scale_2", "NVFP4"),
    (r"[._]weight_global_scale", "NVFP4"),
    (r"[._](weight_packed|weight_shape)", "compressed-tensors"),
    (r"[._](qweight|qzeros|g_idx)", "GPTQ or AWQ"),
    (r"[._](weight|input|output)_scale", "FP8"),
    (r"\.self_attn\.[kv]_scale", "FP8"),
)
_ANY_SCHEME = re.compile(f".*(?:{'|'.join(ending for ending, _ in _SCHEMES)})")


def refuse_quantized_tensors(
    names: Collection[str],
    tensors: Mapping[str, TensorInfo],
    document: Mapping[str, Any],
    where: str,
) -> None:
    """Raise CheckpointError where tensors are of a quantization that is not read.

    Args:
        names: of all tensors, those that an index promises too.
        tensors: those whose headers were read.
        document: config.json, which says if FP8 is what it can be read as.
        where: what the message begins with.
    """
    suspicious = list(filter(_ANY_SCHEME.fullmatch, names))
    for ending, scheme in _SCHEMES:
        pattern = re.compile(rf".*{ending}")
        _refuse(sorted(filter(pattern.fullmatch, suspicious)), scheme, where)
    if document.get("quantization_config") is not None:
        return
    in_fp8 = [name for name in names if name.endswith(FP8_SCALE)]
    in_fp8 += [name for name, info in tensors.items() if info.dtype.startswith("F8_E")]
    _refuse(sorted(in_fp8), "FP8 without a quantization_config in config.json", where)


def _refuse(names: list[str], scheme: str, where: str) -> None:
    if names:
        count = f"{len(names)} tensors" if len(names) > 1 else "a tensor"
        raise CheckpointError(
            f"{where}: found {scheme}: {count} such as {names[0]:.100}, expected bfloat16, "
            "float16, float32 or gpt-oss's MXFP4: take the checkpoint that it was made from"
        )
