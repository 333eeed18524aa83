"""The PyTorch side: a checkpoint's configuration and weights as they lie, and the model that
defines the numbers.
"""

from gptoss_onnx.reference.checkpoint import Checkpoint, open_checkpoint
from gptoss_onnx.reference.config import ModelConfig, RopeConfig
from gptoss_onnx.reference.model import GptOss

__all__ = ["Checkpoint", "GptOss", "ModelConfig", "RopeConfig", "open_checkpoint"]
