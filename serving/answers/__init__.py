"""The tokens that a model says to content, reasoning and tool calls, as they come."""

from gptoss_onnx.serving.answers.answer import Answer, AnswerDelta, AnswerItem, ToolCall
from gptoss_onnx.serving.answers.reader import AnswerReader, answer_reader

__all__ = ["Answer", "AnswerDelta", "AnswerItem", "AnswerReader", "ToolCall", "answer_reader"]
