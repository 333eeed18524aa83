"""HeaderTree: the headers that a model of gpt-oss may write, as a tree of tokens.

Headers are spelled as the format's own renderer spells them, part by part, which is how models were
trained to write them. So what was written need not be parsed: each leaf of the tree says what its
header opens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.harmony_tokens import HarmonyTokens

Kind = Literal["thoughts", "preamble", "answer", "call", "builtin"]
FUNCTIONS = "functions."  # what the recipient of a function's call begins with
CALL_CHANNELS = ("commentary", "analysis")  # where models call: as they should, and as some do
_Encode = Callable[[str], Sequence[int]]


@dataclass(frozen=True)
class Opening:
    """What a header opens.

    Attributes:
        kind: of the text that follows.
        name: of the function that is called; empty for all but calls.
    """

    kind: Kind
    name: str = ""


@dataclass
class HeaderTree:
    """A place within the headers: where each token that may come next leads to. Places are shared
    between trees, so none changes once it is part of one.
    """

    following: dict[int, "HeaderTree | Opening"] = field(default_factory=dict)

    def mask(self, logits: NDArray[np.float32]) -> None:
        """Write −inf into logits (V) but for the tokens that may come next."""
        ids = list(self.following)
        kept = logits[ids]
        logits.fill(-np.inf)
        logits[ids] = kept

    def add(self, tokens: Sequence[int], end: "HeaderTree | Opening") -> None:
        """Add a way: these tokens lead to what an opening opens, or to all that follows a place.

        Two ways part at a token: `<|message|>` stands only before an opening, and what may follow
        a name never begins as a longer name goes on.
        """
        place = self
        for token in tokens[:-1] if isinstance(end, Opening) else tokens:
            inner = place.following.setdefault(token, HeaderTree())
            assert isinstance(inner, HeaderTree)
            place = inner
        if isinstance(end, Opening):
            place.following[tokens[-1]] = end
        else:
            place.following.update(end.following)


class HeaderSpeller:
    """Makes the trees of one request.

    Args:
        tokens: the tokenizer's control tokens.
        encode: returns the ids of a text without control tokens.
    """

    def __init__(self, tokens: HarmonyTokens, encode: _Encode) -> None:
        self._tokens, self._encode = tokens, encode
        self._ids_of: dict[str, tuple[int, ...]] = {}
        self._trees: dict[tuple[Opening, ...], HeaderTree] = {}

    def tree(self, openings: Sequence[Opening]) -> HeaderTree:
        """Return the tree of all headers that open one of these, from `<|start|>` on."""
        key = tuple(openings)
        if key not in self._trees:
            self._trees[key] = self._built(key)
        return self._trees[key]

    def _built(self, openings: Sequence[Opening]) -> HeaderTree:
        message, channel = self._tokens.message, self._tokens.channel
        after_role, after_channel = HeaderTree(), HeaderTree()  # the two places of a recipient
        for opening in openings:
            if opening.kind in ("call", "builtin"):
                self._add_recipient(opening, after_role, after_channel)
        if after_channel.following:
            for word in CALL_CHANNELS:
                after_role.add(self._ids(channel, word), after_channel)
        for opening in openings:
            if opening.kind == "answer":
                after_role.add(self._ids(channel, "final"), self._types(opening))
            elif opening.kind in ("thoughts", "preamble"):
                word = "analysis" if opening.kind == "thoughts" else "commentary"
                after_role.add(self._ids(channel, word, message), opening)
        tree = HeaderTree()
        tree.add(self._ids(self._tokens.start, "assistant"), after_role)
        return tree

    def _add_recipient(
        self, opening: Opening, after_role: HeaderTree, after_channel: HeaderTree
    ) -> None:
        prefix = FUNCTIONS if opening.kind == "call" else ""
        recipient = self._ids(f" to={prefix}{opening.name}")
        types = self._types(opening)
        channels = HeaderTree()
        for word in CALL_CHANNELS:
            channels.add(self._ids(self._tokens.channel, word), types)
        after_role.add(recipient, channels)
        after_channel.add(recipient, types)

    def _types(self, opening: Opening) -> HeaderTree:
        """Return the ways to say what the text is in, silence among them, and to open it."""
        constrain, message = self._tokens.constrain, self._tokens.message
        types = HeaderTree()
        types.add(self._ids(message), opening)
        types.add(self._ids(" json", message), opening)
        if constrain is not None:
            types.add(self._ids(" ", constrain, "json", message), opening)
            types.add(self._ids(constrain, "json", message), opening)
        if opening.kind == "builtin":
            types.add(self._ids(" code", message), opening)
        return types

    def _ids(self, *pieces: str | int) -> list[int]:
        """Return the ids of texts and control tokens."""
        ids: list[int] = []
        for piece in pieces:
            if isinstance(piece, int):
                ids.append(piece)
                continue
            if piece not in self._ids_of:
                self._ids_of[piece] = tuple(self._encode(piece))
            ids += self._ids_of[piece]
        return ids
