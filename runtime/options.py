"""The keyword arguments of `Session.generate` and `Session.stream_text`, which say there what they
mean.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypedDict

from gptoss_onnx.runtime.kv_cache import KVCache
from gptoss_onnx.runtime.speculation.speculation import Speculation

if TYPE_CHECKING:
    from gptoss_onnx.runtime.session import Session


class GenerateOptions(TypedDict, total=False):
    """Of `generate`."""

    max_new_tokens: int
    cache: KVCache | None
    speculate: int | Speculation
    draft: "Session | None"


class TextOptions(TypedDict, total=False):
    """Of `stream_text` for a text."""

    max_new_tokens: int | None
    cache: KVCache | None
    speculate: int | Speculation
    draft: "Session | None"


class ChatOptions(TextOptions, total=False):
    """Of `stream_text` for a conversation."""

    variables: Mapping[str, Any] | None
