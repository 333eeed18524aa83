"""PlainReader: the text of a completion, which has no channels and no calls."""

from collections.abc import Sequence

from gptoss_onnx.errors import GptOssError
from gptoss_onnx.runtime.text import Tokenizer
from gptoss_onnx.serving.answers import Answer, AnswerDelta


class PlainReader:
    """Reads tokens as text up to the first stop text; a `choice_sink.Reader`."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str]) -> None:
        self._stream = tokenizer.stream(stop)
        self._texts: list[str] = []
        self.problem: GptOssError | None = None  # none that it knows of: what fails here, raises

    @property
    def done(self) -> bool:
        """Whether a stop text has appeared."""
        return self._stream.stopped

    def push(self, token: int) -> list[AnswerDelta]:
        """Take a token and return what is certain by now."""
        return self._deltas(self._stream.push(token))

    def finish(self) -> list[AnswerDelta]:
        """Return what was held back."""
        return self._deltas(self._stream.finish())

    def answer(self) -> Answer:
        """Return the whole text, as content."""
        return Answer(content="".join(self._texts), reasoning="", tool_calls=(), items=())

    def _deltas(self, text: str) -> list[AnswerDelta]:
        if not text:
            return []
        self._texts.append(text)
        return [AnswerDelta("content", text)]
