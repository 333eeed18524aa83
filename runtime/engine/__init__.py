"""Continuous batching: many requests on one session, each answered as if it ran alone."""

from gptoss_onnx.runtime.batch_sampling import TokenLogprobs
from gptoss_onnx.runtime.engine.engine import Engine
from gptoss_onnx.runtime.engine.observer import EngineObserver, EngineSnapshot
from gptoss_onnx.runtime.engine.refusals import EngineClosedError, QueueFullError
from gptoss_onnx.runtime.engine.request import (
    Constraint,
    FinishReason,
    GenerationRequest,
    Sink,
)
from gptoss_onnx.runtime.engine.ticket import Ticket

__all__ = [
    "Constraint",
    "Engine",
    "EngineClosedError",
    "EngineObserver",
    "EngineSnapshot",
    "FinishReason",
    "GenerationRequest",
    "QueueFullError",
    "Sink",
    "Ticket",
    "TokenLogprobs",
]
