"""TagSplitter: thoughts, calls and content out of the text of models without harmony.

Models of the family put thoughts between `<think>` and `</think>`, and calls as JSON between
`<tool_call>` and `</tool_call>` (Qwen, Hermes).
"""

from dataclasses import dataclass
from typing import Literal

THINK, END_THINK = "<think>", "</think>"
CALL, END_CALL = "<tool_call>", "</tool_call>"
TAGS = (THINK, END_THINK, CALL, END_CALL)
_LONGEST_SPACE = 16  # characters of white space that may wait for a tag
_State = Literal["begin", "content", "begin thought", "thought", "call"]


@dataclass(frozen=True)
class Segment:
    """A piece of text, never empty but for a call: that is all that stands between its tags.

    Attributes:
        part: the number of the part it belongs to; each tag begins another.
        is_closed: of a call, its closing tag has come.
    """

    kind: Literal["content", "reasoning", "call"]
    text: str
    part: int
    is_closed: bool = True


class TagSplitter:
    """Splits text as it comes; no piece of a tag is given as text.

    `<think>` counts where the text begins, or what follows a closing tag: an answer may speak of
    the tag. Where the prompt has opened it, the model may say it once more. `<tool_call>` counts in
    content, where the request has tools. White space between tags and texts belongs to neither.
    The time for a piece does not depend on how many came before.
    """

    def __init__(self, *, is_thinking: bool, has_tools: bool) -> None:
        self._state: _State = "begin thought" if is_thinking else "begin"
        self._has_tools, self._is_after_tag = has_tools, is_thinking
        self._held = ""  # not given yet
        self._call: list[str] = []
        self._part = 0

    @property
    def is_thinking(self) -> bool:
        """Whether the text goes on in a thought."""
        return "thought" in self._state

    def push(self, text: str) -> list[Segment]:
        """Take text and return what is certain by now."""
        self._held += text
        segments = []
        while True:
            part, state = self._part, self._state
            segment = self._step()
            if segment is not None and (segment.text or segment.kind == "call"):
                segments.append(segment)
            if (part, state) == (self._part, self._state):
                return segments

    def finish(self) -> list[Segment]:
        """Return what was held back; the text has come to its end."""
        text, self._held = self._held, ""
        if self._state == "call":
            return [Segment("call", "".join([*self._call, text]), self._part, is_closed=False)]
        kind: Literal["content", "reasoning"] = "content"
        if self.is_thinking:
            kind, text = "reasoning", text.rstrip()
        if "begin" in self._state and self._is_after_tag:
            text = text.strip()
        return [Segment(kind, text, self._part)] if text else []

    def _step(self) -> Segment | None:
        """Give what the held text begins with; turn to another state where it says so."""
        if self._state == "begin":
            self._begin()
        elif self._state == "begin thought":
            self._begin_thought()
        elif self._state == "thought":
            return self._read_thought()
        elif self._state == "call":
            return self._read_call()
        else:
            return self._read_content()
        return None

    def _begin(self) -> None:
        rest = self._held.lstrip()
        tags = [(THINK, "begin thought"), *([(CALL, "call")] if self._has_tools else [])]
        for tag, state in tags:
            if rest.startswith(tag):
                self._turn("call" if state == "call" else "begin thought", rest[len(tag) :])
                return
        space = len(self._held) - len(rest)
        if space <= _LONGEST_SPACE and any(tag.startswith(rest) for tag, _ in tags):
            return  # may be one
        self._held = rest if self._is_after_tag else self._held
        self._state = "content"

    def _begin_thought(self) -> None:
        rest = self._held.lstrip()
        if rest.startswith(THINK):  # said by the prompt and by the model
            self._turn("begin thought", rest[len(THINK) :])
        elif not THINK.startswith(rest):
            self._held, self._state = rest, "thought"

    def _read_thought(self) -> Segment:
        text, found, rest = self._held.partition(END_THINK)
        segment = Segment("reasoning", text.rstrip(), self._part)
        if found:
            self._turn("begin", rest)
            return segment
        text = text[: len(text) - _overlap(text, END_THINK)]
        if len(text) - len(text.rstrip()) <= _LONGEST_SPACE:
            text = text.rstrip()
        self._held = self._held[len(text) :]
        return Segment("reasoning", text, self._part)

    def _read_content(self) -> Segment:
        text, found, rest = self._held.partition(CALL) if self._has_tools else (self._held, "", "")
        segment = Segment("content", text, self._part)
        if found:
            self._turn("call", rest)
            return segment
        if self._has_tools:
            text = text[: len(text) - _overlap(text, CALL)]
        self._held = self._held[len(text) :]
        return Segment("content", text, self._part)

    def _read_call(self) -> Segment | None:
        text, found, rest = self._held.partition(END_CALL)
        if found:
            segment = Segment("call", "".join([*self._call, text]), self._part)
            self._turn("begin", rest)
            return segment
        text = text[: len(text) - _overlap(text, END_CALL)]
        self._call.append(text)
        self._held = self._held[len(text) :]
        return None

    def _turn(self, state: _State, rest: str) -> None:
        """Go on behind a tag."""
        self._state, self._held, self._is_after_tag = state, rest, True
        self._call = []
        self._part += 1


def _overlap(text: str, tag: str) -> int:
    """Return how many characters at the end of a text are a beginning of a tag."""
    longest = min(len(text), len(tag) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(tag[:size])), 0)
