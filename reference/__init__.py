"""The PyTorch side: a checkpoint's configuration, and the model that defines the numbers."""

from gptoss_onnx.reference.checkpoint import Checkpoint, open_checkpoint
from gptoss_onnx.reference.config import DecoderConfig, RopeConfig
from gptoss_onnx.reference.decoder import Decoder

__all__ = [
    "Checkpoint",
    "Decoder",
    "DecoderConfig",
    "RopeConfig",
    "open_checkpoint",
]
