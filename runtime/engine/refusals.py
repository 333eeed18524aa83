"""Why an engine takes no request now: its queue is full, or it ends."""

from gptoss_onnx.errors import GptOssError


class QueueFullError(GptOssError):
    """As many requests wait as may.

    Attributes:
        retry_after: seconds, 1 or more, after which a place will probably be free.
    """

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class EngineClosedError(GptOssError):
    """The engine is draining, closed, or cannot go on after a failure."""
