"""Export gpt-oss checkpoints to ONNX, prove the result against PyTorch, run it with ONNX Runtime."""

from importlib.metadata import version

__version__ = version("gptoss-onnx")
