"""TextSource: the answer in the text of a model without harmony: tags, or content alone.

What stands between the tags of a call and is no call, because it is no JSON object with a name, is
content as the model wrote it. So is a tag where it does not count; see `TagSplitter`.
"""

import json
from collections.abc import Sequence
from typing import Any

from gptoss_onnx.errors import InputError
from gptoss_onnx.json_text import parse_json
from gptoss_onnx.runtime.text import Tokenizer
from gptoss_onnx.runtime.text_stream import TextStream
from gptoss_onnx.serving.answers.answer import Answer, AnswerDelta
from gptoss_onnx.serving.answers.draft import AnswerDraft
from gptoss_onnx.serving.answers.tags import CALL, END_CALL, TAGS, THINK, Segment, TagSplitter
from gptoss_onnx.serving.answers.tool_names import ToolNames

_TAIL = 16  # tokens of a prompt that may open a thought


class TextSource:
    """Reads one answer; see `AnswerReader`."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt: Sequence[int],
        stop: Sequence[str],
        names: ToolNames,
        *,
        has_tools: bool,
    ) -> None:
        self._tokenizer, self._stop, self._names = tokenizer, stop, names
        special = tokenizer.special_tokens
        self._spelled = {special[tag]: tag for tag in TAGS if tag in special}
        self._characters = TextStream(tokenizer)
        self._tags = TagSplitter(is_thinking=_opens_thought(tokenizer, prompt), has_tools=has_tools)
        self._draft = AnswerDraft()
        self._content = TextStream(tokenizer, stop)  # of the part that is content
        self._part = -1
        self._reasoning_tokens = 0

    @property
    def done(self) -> bool:
        """Whether a stop text has come."""
        return self._content.stopped

    def push(self, token: int) -> list[AnswerDelta]:
        """Take a token and return the pieces that are certain by now."""
        tag = self._spelled.get(token)  # a tag that the tokenizer leaves out of its text
        text = self._characters.push(token) if tag is None else self._characters.finish() + tag
        deltas = self._take(self._tags.push(text))
        self._reasoning_tokens += self._tags.is_thinking
        return deltas

    def finish(self) -> list[AnswerDelta]:
        """Return what was held back; the tokens have come to their end."""
        deltas = self._take(self._tags.push(self._characters.finish()))
        deltas += self._take(self._tags.finish())
        return deltas + self._end_content()

    def answer(self) -> Answer:
        """Return the answer as far as it has come."""
        return self._draft.answer(self._reasoning_tokens)

    def _take(self, segments: Sequence[Segment]) -> list[AnswerDelta]:
        deltas: list[AnswerDelta] = []
        for segment in segments:
            if self.done:
                break
            if segment.part != self._part:
                deltas += self._end_content()
                self._part = segment.part
                if segment.kind == "reasoning":
                    self._draft.begin("reasoning")
                else:
                    self._draft.begin("content")
            if segment.kind == "content":
                deltas += self._draft.add(self._content.push_text(segment.text))
            elif segment.kind == "reasoning":
                deltas += self._draft.add(segment.text)
            else:
                deltas += self._call(segment)
        return deltas

    def _end_content(self) -> list[AnswerDelta]:
        """Give what a stop text might have begun with."""
        if self.done:
            return []
        text, self._content = self._content.finish(), TextStream(self._tokenizer, self._stop)
        return self._draft.add(text)

    def _call(self, segment: Segment) -> list[AnswerDelta]:
        calls = _read_calls(segment.text)
        if not calls:
            text = f"{CALL}{segment.text}{END_CALL if segment.is_closed else ''}"
            return self._draft.add(self._content.push_text(text))
        deltas: list[AnswerDelta] = []
        for name, arguments in calls:
            deltas += self._draft.begin_call(self._names.called(name))
            deltas += self._draft.add(arguments) + self._draft.end_call()
        return deltas


def _read_calls(text: str) -> list[tuple[str, str]]:
    """Return names and arguments of the calls that a model wrote as JSON; none where one is not."""
    try:
        value = parse_json(text.strip().encode(), "call", InputError)
    except InputError:
        return []
    calls = [_read_call(call) for call in (value if isinstance(value, list) else [value])]
    return [call for call in calls if call is not None] if None not in calls else []


def _read_call(call: Any) -> tuple[str, str] | None:
    name = call.get("name") if isinstance(call, dict) else None
    if not isinstance(name, str) or not name:
        return None
    arguments = call.get("arguments", call.get("parameters", {}))
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    return name, arguments


def _opens_thought(tokenizer: Tokenizer, prompt: Sequence[int]) -> bool:
    """Say whether a prompt ends where thoughts begin, as some templates write it."""
    tail = tokenizer.decode(prompt[-_TAIL:], skip_special_tokens=False)
    return tail.rstrip().endswith(THINK)
