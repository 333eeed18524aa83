"""The values that options offer: the same for the command line and for the functions behind it."""

from dataclasses import dataclass
from typing import Literal, get_args

from gptoss_onnx.errors import InputError

Target = Literal["portable", "ort", "openvino"]
Provider = Literal["cpu", "cuda"]
WeightMode = Literal["link", "copy", "reference"]
# of projections and lm_head: --dense
ProjectionForm = Literal["checkpoint", "packed", "int8", "float32"]
ExpertForm = Literal["checkpoint", "mxfp4", "int8", "int4"]
AdapterMode = Literal["merge", "runtime"]
OnnxRuntime = Literal["1.28", "1.32"]  # the least that a package is to run on
KvDtype = Literal["float32", "float16", "bfloat16"]
Kernels = Literal["auto", "native", "portable"]
Activations = Literal["exact", "bf16", "int8"]
# What `validate` lets run a package: `python` is a session of its own process.
Runtime = Literal["python", "cpp", "node", "browser", "genai", "onnx.reference", "openvino"]
AskedRuntime = Literal[Runtime, "all"]
# Of the native kernels; each includes the ones before it.
CpuLevel = Literal["scalar", "avx2", "avx512", "avx512_vnni", "avx512_vbmi", "avx512_bf16", "amx"]


@dataclass(frozen=True)
class Options:
    """The options of an export, with what stands for None in its place; see `export` for each."""

    target: Target
    provider: Provider
    weights: WeightMode
    dense: ProjectionForm
    experts: ExpertForm
    kv_dtype: KvDtype
    onnxruntime: OnnxRuntime


def check_choice(name: str, value: object, choices: object) -> None:
    """Raise InputError unless `value` is one of the literals that `choices` offers."""
    offered = get_args(choices)
    if value not in offered:
        raise InputError(f"{name}: found {value!r}, expected one of {', '.join(offered)}")
