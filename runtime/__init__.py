"""Run a package with ONNX Runtime; imports neither torch nor transformers nor onnxscript."""

from gptoss_onnx.package import Package
from gptoss_onnx.runtime.conversation import Conversation
from gptoss_onnx.runtime.generation import Generation
from gptoss_onnx.runtime.generation_row import FinishReason
from gptoss_onnx.runtime.harmony import HarmonyParser
from gptoss_onnx.runtime.harmony_message import HarmonyDelta, HarmonyMessage
from gptoss_onnx.runtime.kv_cache import PREFILL_CHUNK, KVCache
from gptoss_onnx.runtime.package_check import open_package
from gptoss_onnx.runtime.row_state import RowState
from gptoss_onnx.runtime.sampling import Sampling
from gptoss_onnx.runtime.session import Session
from gptoss_onnx.runtime.speculation.speculation import Speculated, Speculation
from gptoss_onnx.runtime.staged import StagedSession
from gptoss_onnx.runtime.text import Tokenizer, chat_messages
from gptoss_onnx.runtime.text_generation import Prompt, TextGeneration
from gptoss_onnx.runtime.text_stream import TextStream

__all__ = [
    "PREFILL_CHUNK",
    "Conversation",
    "FinishReason",
    "Generation",
    "HarmonyDelta",
    "HarmonyMessage",
    "HarmonyParser",
    "KVCache",
    "Package",
    "Prompt",
    "RowState",
    "Sampling",
    "Session",
    "Speculated",
    "Speculation",
    "StagedSession",
    "TextGeneration",
    "TextStream",
    "Tokenizer",
    "chat_messages",
    "open_package",
]
