"""Constraints: hold an answer to the JSON, the tools and the choice that its request wants."""

from gptoss_onnx.serving.constraints.maker import ConstraintMaker
from gptoss_onnx.serving.constraints.text_states import EnforcementError
from gptoss_onnx.serving.constraints.wanted import Wanted, read_wanted

__all__ = ["ConstraintMaker", "EnforcementError", "Wanted", "read_wanted"]
