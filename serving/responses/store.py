"""ResponseStore: responses that later turns continue, bounded in number, bytes and age.

Each response keeps its own items and points to those before it. So a chain of turns costs what it
holds once, and a response can be continued when the earlier ones have left the store.
"""

import json
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gptoss_onnx.serving.responses.growing import Item

OVERHEAD = 1_000  # bytes that Python needs beside the text of one response


@dataclass(frozen=True)
class StoreLimits:
    """How much is kept: responses, bytes of their JSON, and seconds since each was made."""

    count: int
    nbytes: int
    seconds: float


@dataclass(eq=False)
class Turn:
    """The items of one response, as JSON, and the turn that it continued.

    Attributes:
        holders: kept responses and later turns that need it; without any it costs the store
            nothing.
    """

    given: bytes  # a list: what the request brought
    made: bytes  # a list: what the model answered
    before: "Turn | None"
    holders: int = 0

    @property
    def nbytes(self) -> int:
        """What it costs, without the turns before it."""
        return len(self.given) + len(self.made) + OVERHEAD


@dataclass(frozen=True)
class _Kept:
    head: bytes  # the response without its output
    turn: Turn
    owner: str
    until: float


class ResponseStore:
    """Finds responses by their id, and forgets the one that was not used for the longest time.

    It belongs to the event loop: nothing in it waits, and no other thread may use it. Each response
    has an owner; for others it does not exist.
    """

    def __init__(self, limits: StoreLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits, self._clock = limits, clock
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def put(
        self, response: Mapping[str, Any], given: Sequence[Item], before: Turn | None, owner: str
    ) -> bool:
        """Keep a response with the items that its request brought, after the turn it continued.

        Returns False, and keeps what it has, where the conversation alone is larger than the store.
        """
        head = {key: value for key, value in response.items() if key != "output"}
        turn = Turn(_packed(list(given)), _packed(response["output"]), before)
        kept = _Kept(_packed(head), turn, owner, self._clock() + self._limits.seconds)
        if len(kept.head) + sum(past.nbytes for past in turns(turn)) > self._limits.nbytes:
            return False
        self._kept[response["id"]] = kept
        self.nbytes += len(kept.head)
        self._hold(turn)
        self._shrink()
        return True

    def response(self, name: str, owner: str) -> dict[str, Any] | None:
        """Return a response that is kept, else None."""
        kept = self._find(name, owner)
        if kept is None:
            return None
        return {**json.loads(kept.head), "output": json.loads(kept.turn.made)}

    def turn(self, name: str, owner: str) -> Turn | None:
        """Return the turn of a response that is kept, to be continued, else None."""
        kept = self._find(name, owner)
        return None if kept is None else kept.turn

    def delete(self, name: str, owner: str) -> bool:
        """Forget a response; its items stay as long as a later turn needs them."""
        if self._find(name, owner) is None:
            return False
        self._drop(name)
        return True

    def _find(self, name: str, owner: str) -> _Kept | None:
        kept = self._kept.get(name)
        if kept is None or kept.owner != owner:
            return None
        if kept.until <= self._clock():
            self._drop(name)
            return None
        self._kept.move_to_end(name)
        return kept

    def _shrink(self) -> None:
        limits, now = self._limits, self._clock()
        for name in [name for name, kept in self._kept.items() if kept.until <= now]:
            self._drop(name)
        while self._kept and (len(self._kept) > limits.count or self.nbytes > limits.nbytes):
            self._drop(next(iter(self._kept)))

    def _drop(self, name: str) -> None:
        kept = self._kept.pop(name)
        self.nbytes -= len(kept.head)
        self._release(kept.turn)

    def _hold(self, turn: Turn | None) -> None:
        while turn is not None:
            turn.holders += 1
            if turn.holders > 1:
                return
            self.nbytes += turn.nbytes
            turn = turn.before

    def _release(self, turn: Turn | None) -> None:
        while turn is not None:
            turn.holders -= 1
            if turn.holders:
                return
            self.nbytes -= turn.nbytes
            turn = turn.before


def input_of(turn: Turn) -> list[Item]:
    """Return all that the model was given for a turn: the items of the turns before it, and its
    own.
    """
    return [*conversation(turn.before), *json.loads(turn.given)]


def conversation(turn: Turn | None) -> list[Item]:
    """Return the items of all turns up to this one, what was given and what was made."""
    return [
        item
        for past in reversed(list(turns(turn)))
        for part in (past.given, past.made)
        for item in json.loads(part)
    ]


def turns(turn: Turn | None) -> Iterator[Turn]:
    """Yield a turn and those before it, the last first."""
    while turn is not None:
        yield turn
        turn = turn.before


def _packed(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
