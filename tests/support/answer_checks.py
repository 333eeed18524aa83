"""What holds for every answer that an AnswerReader reads."""

from collections.abc import Sequence

from gptoss_onnx.serving.answers import Answer, AnswerDelta, AnswerReader


def read(reader: AnswerReader, tokens: Sequence[int]) -> tuple[Answer, list[AnswerDelta], int]:
    """Read until the answer is complete, as a server does; the last is how many tokens it took."""
    deltas: list[AnswerDelta] = []
    taken = 0
    for token in tokens:
        deltas += reader.push(token)
        taken += 1
        if reader.done:
            break
    deltas += reader.finish()
    assert reader.done
    assert reader.finish() == []
    assert reader.push(0) == []
    return reader.answer(), deltas, taken


def check_deltas(answer: Answer, deltas: Sequence[AnswerDelta]) -> None:
    """The pieces, put together, are the answer."""
    for kind, text in (("content", answer.content), ("reasoning", answer.reasoning)):
        assert "".join(delta.text for delta in deltas if delta.kind == kind) == text
    for number, call in enumerate(answer.tool_calls):
        first, *rest = [delta for delta in deltas if delta.call == number]
        assert (first.name, first.id) == (call.name, call.id)
        assert not any(delta.name or delta.id for delta in rest)
        assert first.text + "".join(delta.text for delta in rest) == call.arguments
    assert {delta.call for delta in deltas} <= {-1, *range(len(answer.tool_calls))}
    assert all(delta.text or delta.name for delta in deltas)
    for place, item in enumerate(answer.items):
        mine = [delta for delta in deltas if delta.item == place]
        assert {delta.kind for delta in mine} == {item.kind}
        text = item.text if item.call is None else item.call.arguments
        assert "".join(delta.text for delta in mine) == text
    places = [delta.item for delta in deltas if delta.item >= 0]
    assert places == sorted(places)
