"""Base: a checkpoint to which adapters are added."""

from collections.abc import Mapping
from dataclasses import dataclass

from gptoss_onnx.checkpoint.tensors import Parameter
from gptoss_onnx.reference.architecture import Architecture, StoredNames
from gptoss_onnx.reference.config import DecoderConfig


@dataclass(frozen=True)
class Base:
    """A checkpoint without adapters.

    Attributes:
        architecture: of its config.json.
        config: what config.json says.
        names: of the stored tensors.
        parameters: by the decoder's names.
    """

    architecture: Architecture
    config: DecoderConfig
    names: StoredNames
    parameters: Mapping[str, Parameter]
