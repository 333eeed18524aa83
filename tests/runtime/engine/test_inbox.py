"""The queue: who waits, who may, and when to come again."""

import pytest

from gptoss_onnx.runtime import Session
from gptoss_onnx.runtime.engine import EngineClosedError, QueueFullError
from gptoss_onnx.runtime.engine.entry import Entry
from gptoss_onnx.runtime.engine.inbox import Inbox
from gptoss_onnx.runtime.engine.pace import Pace
from support.engine_sinks import Kept, asked


def entries(session: Session, inbox: Inbox, number: int) -> list[Entry]:
    made = [Entry.of(asked([1], Kept()), session, 9) for _ in range(number)]
    for entry in made:
        entry.when_ended(lambda _: None, inbox.leave)
    return made


def test_first_come_first_served_and_who_is_put_back_comes_first(fake: Session) -> None:
    inbox = Inbox(2, 2)
    made = entries(fake, inbox, 4)
    for entry in made:
        inbox.put(entry, lambda: 1)
    assert [inbox.take(), inbox.take()] == made[:2]
    inbox.put_back(made[:2])
    made[2].ticket.cancel()
    assert inbox.take_cancelled() == [made[2]]
    assert inbox.take_cancelled() == []
    assert [inbox.take(), len(inbox), inbox.take_all()] == [made[0], 2, [made[1], made[3]]]
    assert inbox.take() is None


def test_places_are_counted_from_the_submission_to_the_end(fake: Session) -> None:
    inbox = Inbox(1, 1)
    first, second, third = entries(fake, inbox, 3)
    inbox.put(first, lambda: 7)
    assert inbox.take() is first
    inbox.put(second, lambda: 7)
    with pytest.raises(QueueFullError, match="try again in 7 s") as refused:
        inbox.put(third, lambda: 7)
    assert (refused.value.retry_after, inbox.submitted, inbox.refused) == (7, 2, 1)
    first.finish("stop")
    inbox.put(third, lambda: 7)
    assert not inbox.wait_until_empty(0)
    second.finish("stop")
    third.finish("stop")
    assert inbox.wait_until_empty(0)


def test_the_first_reason_for_the_end_is_kept(fake: Session) -> None:
    inbox = Inbox(1, 1)
    for refuse, reason in (
        (inbox.refuse, "draining"),
        (inbox.end, "broken"),
        (inbox.end, "closed"),
    ):
        refuse(reason)
        with pytest.raises(EngineClosedError, match="broken" if reason == "closed" else reason):
            inbox.put(*entries(fake, inbox, 1), lambda: 1)
    assert inbox.ending


def test_a_place_is_expected_after_a_mean_time_divided_by_the_slots() -> None:
    pace = Pace(4)
    assert pace.seconds_until_place() == 1
    for _ in range(40):
        pace.measure(20)
    assert pace.seconds_until_place() == 5
    pace.measure(0.0)
    assert pace.seconds_until_place() == 4
    for _ in range(40):
        pace.measure(1e6)
    assert pace.seconds_until_place() == 60
