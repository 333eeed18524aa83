"""The store of responses: what it finds, what it forgets, and that it never holds more than it
may.
"""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gptoss_onnx.serving.responses.store import (
    OVERHEAD,
    ResponseStore,
    StoreLimits,
    Turn,
    conversation,
    input_of,
    turns,
)


def items(*texts: str) -> list[dict[str, Any]]:
    return [{"type": "message", "text": text} for text in texts]


def response(name: str, *output: str) -> dict[str, Any]:
    return {"id": name, "status": "completed", "output": items(*output)}


def limits(count: int = 100, nbytes: int = 1_000_000, seconds: float = 100.0) -> StoreLimits:
    return StoreLimits(count, nbytes, seconds)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def chain(store: ResponseStore, length: int) -> None:
    """Keep responses `0`, `1`, … that continue each other."""
    before: Turn | None = None
    for index in range(length):
        assert store.put(response(f"{index}", f"a{index}"), items(f"q{index}"), before, "me")
        before = store.turn(f"{index}", "me")


def test_a_response_comes_back_as_it_was() -> None:
    store = ResponseStore(limits())
    kept = response("r", "Grüße")
    store.put(kept, items("q"), None, "me")
    assert store.response("r", "me") == kept
    assert store.response("s", "me") is None and store.turn("s", "me") is None


def test_others_do_not_see_it() -> None:
    store = ResponseStore(limits())
    store.put(response("r"), items("q"), None, "me")
    assert store.response("r", "you") is None and store.turn("r", "you") is None
    assert not store.delete("r", "you")
    assert store.response("r", "me") is not None


def test_a_conversation_is_reachable_after_its_earlier_responses_are_gone() -> None:
    store = ResponseStore(limits(count=2))
    chain(store, 4)
    assert len(store) == 2 and store.response("1", "me") is None
    turn = store.turn("3", "me")
    assert turn is not None
    assert [item["text"] for item in conversation(turn)] == [
        f"{kind}{index}" for index in range(4) for kind in "qa"
    ]
    assert [item["text"] for item in input_of(turn)] == ["q0", "a0", "q1", "a1", "q2", "a2", "q3"]


def test_what_was_used_last_is_forgotten_last() -> None:
    store = ResponseStore(limits(count=2))
    for name in "ab":
        store.put(response(name), items("q"), None, "me")
    store.response("a", "me")
    store.put(response("c"), items("q"), None, "me")
    assert [name for name in "abc" if store.response(name, "me")] == ["a", "c"]


def test_old_responses_are_forgotten() -> None:
    clock = Clock()
    store = ResponseStore(limits(seconds=10), clock)
    store.put(response("a"), items("q"), None, "me")
    clock.now = 9.0
    store.put(response("b"), items("q"), None, "me")
    clock.now = 10.0
    assert store.response("a", "me") is None and store.response("b", "me") is not None
    clock.now = 30.0
    store.put(response("c"), items("q"), None, "me")
    assert len(store) == 1


def test_a_conversation_larger_than_the_store_is_not_kept_and_moves_nothing_out() -> None:
    store = ResponseStore(limits(nbytes=4 * OVERHEAD))
    assert store.put(response("a"), items("q"), None, "me")
    assert not store.put(response("b"), items("q" * 4 * OVERHEAD), None, "me")
    assert store.response("a", "me") is not None and store.response("b", "me") is None
    chain(store, 3)
    assert not store.put(response("d"), items("q"), store.turn("2", "me"), "me")
    assert store.response("2", "me") is not None


def test_deleting_the_last_response_frees_all_bytes() -> None:
    store = ResponseStore(limits())
    chain(store, 3)
    assert store.delete("0", "me") and not store.delete("0", "me")
    turn = store.turn("2", "me")
    assert turn is not None and len(list(turns(turn))) == 3
    assert store.delete("2", "me") and store.delete("1", "me")
    assert store.nbytes == 0 and len(store) == 0


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2_000), st.sampled_from("pdg"))))
def test_the_bound_holds_whatever_happens(steps: list[tuple[int, int, str]]) -> None:
    """Responses continue any earlier one, also one that is forgotten while they are made."""
    bounds = limits(count=5, nbytes=8 * OVERHEAD)
    store, held = ResponseStore(bounds), dict[int, Turn | None]()
    for index, (other, size, what) in enumerate(steps):
        if what == "p":
            store.put(response(f"{index}"), items("x" * size), held.get(other), "me")
            held[index % 10] = store.turn(f"{index}", "me")
        elif what == "d":
            store.delete(f"{other}", "me")
        else:
            store.response(f"{other}", "me")
        assert len(store) <= bounds.count and store.nbytes <= bounds.nbytes
    for index in range(len(steps)):
        store.delete(f"{index}", "me")
    assert store.nbytes == 0
