"""Chat messages of the OpenAI API to the tokens that a model continues."""

from gptoss_onnx.serving.prompts.messages import ChatMessage, PastCall, read_messages
from gptoss_onnx.serving.prompts.prompt import ChatPrompt, is_rendered_here, render_chat
from gptoss_onnx.serving.prompts.tools import ToolSpec, read_tools

__all__ = [
    "ChatMessage",
    "ChatPrompt",
    "PastCall",
    "ToolSpec",
    "is_rendered_here",
    "read_messages",
    "read_tools",
    "render_chat",
]
