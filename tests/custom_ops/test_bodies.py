"""Which portable body a graph's nodes get."""

import pytest

from gptoss_onnx.custom_ops.bodies import Use, function_protos
from gptoss_onnx.errors import InputError

REQUIRED = ("query", "key", "value", "past_lengths", "new_lengths")
SHAPES = dict.fromkeys(REQUIRED) | {"past_key": (None, 2, None, 8), "past_value": None}
SINKS = SHAPES | {"sinks": (4,), "cos": (None, None, 4), "sin": None}
UNKNOWN = SHAPES | {"sinks": None, "cos": None, "sin": None}
NARROW = SINKS | {"cos": (None, None, 2)}


@pytest.mark.parametrize(
    ("shapes", "attributes", "parts"),
    [
        (SINKS, {}, 0),
        (UNKNOWN, {}, 0),
        (NARROW, {}, 9),
        (SINKS, {"interleaved": 1}, 9),
        (SINKS, {"window": 8, "sink_tokens": 2}, 9),
        (SINKS | {"alibi_slopes": (4,)}, {}, 9),
        (SHAPES, {}, 9),
    ],
)
def test_attention_is_put_together_where_it_is_unlike_gpt_oss(
    shapes: dict[str, tuple[int | None, ...] | None], attributes: dict[str, int], parts: int
) -> None:
    protos = function_protos([Use("SinkAttention", shapes, attributes)])
    assert protos[-1].name == "SinkAttention"
    assert len(protos) == parts + 1


def test_attributes_that_no_node_states_are_settled() -> None:
    uses = [Use("SinkAttention", SHAPES, {"interleaved": value}) for value in (0, 1)]
    (body,) = (proto for proto in function_protos(uses) if proto.name == "SinkAttention")
    assert [default.name for default in body.attribute_proto] == ["interleaved"]
    assert "sink_tokens" not in body.attribute


def test_nodes_that_need_different_bodies_are_refused() -> None:
    uses = [Use("SinkAttention", shapes, {}) for shapes in (SHAPES, SHAPES | {"sinks": (4,)})]
    with pytest.raises(InputError, match=r"^SinkAttention: found nodes that need different"):
        function_protos(uses)
