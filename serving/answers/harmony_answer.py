"""HarmonySource: the answer in what a model says in harmony, well-formed or not.

The parser makes messages of any tokens; what each is for is decided here:

- Thoughts (channel `analysis`) are reasoning.
- A call is a tool call, whatever its channel. Its arguments are passed on as they are, no JSON
  included; a call without any has `{}`.
- All else that the assistant says is content: channel `final`, no channel, a channel that nobody
  knows, and `commentary` without a recipient, which harmony means for the user (a preamble).
- What the model says in another role ends the answer. If it has said nothing before, its role is a
  slip, and the text is content.
"""

from collections.abc import Sequence

from gptoss_onnx.harmony_tokens import CALL, RETURN
from gptoss_onnx.runtime.harmony import END_OF_TEXT, HarmonyParser, HarmonyTokenizer
from gptoss_onnx.runtime.harmony_message import HarmonyDelta, MessageDraft
from gptoss_onnx.serving.answers.answer import Answer, AnswerDelta, Kind
from gptoss_onnx.serving.answers.draft import AnswerDraft
from gptoss_onnx.serving.answers.tool_names import ToolNames

_ENDS = (RETURN, CALL, END_OF_TEXT)


class HarmonySource:
    """Reads one answer; see `AnswerReader`."""

    def __init__(
        self,
        tokenizer: HarmonyTokenizer,
        prompt: Sequence[int],
        stop: Sequence[str],
        names: ToolNames,
    ) -> None:
        self._parser = HarmonyParser(tokenizer, prompt, stop)
        self._draft, self._names = AnswerDraft(), names
        special = tokenizer.special_tokens
        self._ends = {special[name] for name in _ENDS if name in special}
        self._begun = -1  # the place of the message that was begun last
        self._is_left = False  # the model speaks for somebody else
        self._has_ended = False

    @property
    def done(self) -> bool:
        """Whether the answer is complete."""
        is_complete = self._parser.stopped or self._parser.answered
        return self._has_ended or self._is_left or is_complete

    def push(self, token: int) -> list[AnswerDelta]:
        """Take a token and return the pieces that are certain by now."""
        deltas = self._read(self._parser.push(token))
        self._has_ended = token in self._ends
        return deltas

    def finish(self) -> list[AnswerDelta]:
        """Return what was held back; the tokens have come to their end."""
        deltas = self._read(self._parser.finish())
        self._has_ended = True
        return deltas + self._end_call()

    def answer(self) -> Answer:
        """Return the answer as far as it has come."""
        thoughts = (m.tokens for m in self._parser.drafts if m.kind == "reasoning")
        return self._draft.answer(sum(map(len, thoughts)))

    def _read(self, pieces: Sequence[HarmonyDelta]) -> list[AnswerDelta]:
        deltas: list[AnswerDelta] = []
        for piece in pieces:
            deltas += self._begin_until(piece.message)
            if not self._is_left:
                deltas += self._draft.add(piece.text)
        # A call is named as soon as its header has been read, which gives no text.
        return deltas + self._begin_until(len(self._parser.drafts) - 1)

    def _begin_until(self, place: int) -> list[AnswerDelta]:
        """Begin the messages up to a place, those that have no text included."""
        deltas: list[AnswerDelta] = []
        while self._begun < place:
            message = self._parser.drafts[self._begun + 1]
            is_last = self._begun + 1 == len(self._parser.drafts) - 1
            if is_last and (not message.tokens or self._parser.in_header):
                break  # what it is for is not known yet
            deltas += self._end_call()
            self._begun += 1
            deltas += self._begin(message)
        return deltas

    def _begin(self, message: MessageDraft) -> list[AnswerDelta]:
        if message.kind == "other" and not self._draft.is_empty:
            self._is_left = True
            return []
        if message.kind == "tool_call":
            return self._draft.begin_call(self._names.called(message.header.recipient or ""))
        kind: Kind = "reasoning" if message.kind == "reasoning" else "content"
        self._draft.begin(kind, is_preamble=message.header.channel == "commentary")
        return []

    def _end_call(self) -> list[AnswerDelta]:
        if self._begun < 0 or self._parser.drafts[self._begun].kind != "tool_call":
            return []
        return self._draft.end_call()
