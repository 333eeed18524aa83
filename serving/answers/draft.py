"""AnswerDraft: an answer in the making, which readers fill and whose pieces they give."""

import secrets
from dataclasses import dataclass, field

from gptoss_onnx.serving.answers.answer import Answer, AnswerDelta, AnswerItem, Kind, ToolCall

NO_ARGUMENTS = "{}"  # clients parse the arguments, and nothing is no JSON


@dataclass
class _Item:
    kind: Kind
    call: int = -1
    name: str = ""
    id: str = ""
    is_preamble: bool = False
    text: list[str] = field(default_factory=list)

    def frozen(self) -> AnswerItem:
        text = "".join(self.text)
        if self.kind == "tool_call":
            call = ToolCall(self.id, self.name, text)
            return AnswerItem(self.kind, call=call)
        return AnswerItem(self.kind, text, is_preamble=self.is_preamble)


class AnswerDraft:
    """Collects items, each of which begins, gets text and ends; the next one's beginning ends it.

    The time for a piece does not depend on how many came before.
    """

    def __init__(self) -> None:
        self._items: list[_Item] = []
        self._next: tuple[Kind, bool] | None = None  # begun, and without text so far
        self._joined: dict[Kind, list[str]] = {"content": [], "reasoning": []}
        self._calls = 0

    @property
    def is_empty(self) -> bool:
        """Whether there is no item yet."""
        return not self._items

    def begin(self, kind: Kind, *, is_preamble: bool = False) -> None:
        """Begin content or reasoning; it becomes an item with its first text."""
        self._next = kind, is_preamble

    def begin_call(self, name: str) -> list[AnswerDelta]:
        """Begin a call and return the piece that names it."""
        id_ = f"call_{secrets.token_hex(12)}"
        item = _Item("tool_call", self._calls, name, id_)
        self._next = None
        self._items.append(item)
        self._calls += 1
        return [AnswerDelta("tool_call", "", item.call, name, id_, len(self._items) - 1)]

    def add(self, text: str) -> list[AnswerDelta]:
        """Add text to what was begun last and return its pieces."""
        if not text:
            return []
        if self._next is not None:
            return self._add_first(*self._next, text)
        item = self._items[-1]
        item.text.append(text)
        if item.kind != "tool_call":
            self._joined[item.kind].append(text)
        return [AnswerDelta(item.kind, text, item.call, item=len(self._items) - 1)]

    def end_call(self) -> list[AnswerDelta]:
        """End a call; one without arguments has none of JSON's."""
        return [] if self._items[-1].text else self.add(NO_ARGUMENTS)

    def answer(self, reasoning_tokens: int = 0) -> Answer:
        """Return the answer as far as it has come."""
        items = tuple(item.frozen() for item in self._items)
        return Answer(
            "".join(self._joined["content"]),
            "".join(self._joined["reasoning"]),
            tuple(item.call for item in items if item.call is not None),
            items,
            reasoning_tokens,
        )

    def _add_first(self, kind: Kind, is_preamble: bool, text: str) -> list[AnswerDelta]:
        self._next = None
        self._items.append(_Item(kind, is_preamble=is_preamble))
        said = self._joined[kind]
        between = []
        if said and not said[-1].endswith("\n"):
            said.append("\n")
            between.append(AnswerDelta(kind, "\n"))
        return between + self.add(text)
