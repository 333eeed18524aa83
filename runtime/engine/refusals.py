"""Why an engine takes no request now, and how it tells a sink of what failed."""

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


def told(error: BaseException) -> str:
    """Return what a sink is told of an error, in one line."""
    said = str(error) if isinstance(error, GptOssError) else f"{type(error).__name__}: {error}"
    return " ".join(said.split())
