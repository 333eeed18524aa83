"""Conditions: a layer that is wrong in some calls alone, as a kernel is whose special case is
broken.

What the output projection of a layer gives is then a twentieth too large, for all tokens or for
some. Legend: B batch, S columns of the call, N = B·S, C capacity.
"""

from collections.abc import Callable

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, helper

from mutants.copied import Copied
from mutants.mutant import Change, table
from mutants.nodes import HEALTHY, Beginning, behind, make

FACTOR = 1.05
FULL_CACHE, WINDOW = "past_key_values.1.key", 2
# Adds nodes whose last gives when the layer is wrong: bool (1), or (N, 1) for each token.
Condition = Callable[[Beginning, Copied], str]


def wrong(layer: int, condition: Condition, part: str = "self_attn.o_proj.Linear") -> Change:
    """Choose between right and wrong by `Where`."""

    def change(copied: Copied) -> None:
        graph, name = copied.model.graph, f"layers.{layer}.{part}"
        begin = Beginning(graph)
        when = condition(begin, copied)
        factor = begin.constant(FACTOR, np.float32)
        more = make("Mul", [HEALTHY, factor], f"{name}.wrong")
        chosen = make("Where", [when, more.output[0], HEALTHY], f"{name}.chosen")
        behind(graph, copied.node(name), [more, chosen])

    return change


def branches(layer: int, condition: Condition, part: str = "self_attn.o_proj.Linear") -> Change:
    """Choose between right and wrong by `If`; the condition must hold for the whole call."""

    def change(copied: Copied) -> None:
        graph, name = copied.model.graph, f"layers.{layer}.{part}"
        begin = Beginning(graph)
        one = begin.add("Squeeze", condition(begin, copied))
        factor = begin.constant(FACTOR, np.float32)
        healthy = f"{copied.node(name).output[0]}.healthy"
        bodies = {
            "then_branch": _branch(helper.make_node("Mul", [healthy, factor], ["then"])),
            "else_branch": _branch(helper.make_node("Identity", [healthy], ["else"])),
        }
        behind(graph, copied.node(name), [make("If", [one], f"{name}.chosen", **bodies)])

    return change


def _branch(node: NodeProto) -> GraphProto:
    output = helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None)
    return helper.make_graph([node], node.output[0], [], [output])


def columns(count: int) -> Condition:
    """Calls of so many columns."""
    return lambda begin, copied: begin.add(
        "Equal", begin.size("input_ids", 1), begin.constant([count])
    )


def more_columns(count: int) -> Condition:
    """Calls of more columns, an odd number of them."""

    def condition(begin: Beginning, copied: Copied) -> str:
        size = begin.size("input_ids", 1)
        odd = begin.add("Mod", size, begin.constant([2]))
        many = begin.add("Greater", size, begin.constant([count]))
        return begin.add("And", many, begin.add("Cast", odd, to=TensorProto.BOOL))

    return condition


def rows(count: int) -> Condition:
    """Batches of so many rows."""
    return lambda begin, copied: begin.add(
        "Equal", begin.size("input_ids", 0), begin.constant([count])
    )


def kept(count: int) -> Condition:
    """Calls that want so many positions of each row."""
    return lambda begin, copied: begin.add(
        "Equal", begin.size("logit_positions", 1), begin.constant([count])
    )


def capacity_over(count: int) -> Condition:
    """Caches of more slots."""
    return lambda begin, copied: begin.add(
        "Greater", begin.size(FULL_CACHE, 2), begin.constant([count])
    )


def full(begin: Beginning, copied: Copied) -> str:
    """Calls after which a full layer has no slot left."""
    last = begin.add("Add", "past_lengths", "new_lengths")
    most = begin.add("ReduceMax", last, keepdims=1)
    return begin.add("Equal", most, begin.size(FULL_CACHE, 2))


def past_is_window(begin: Beginning, copied: Copied) -> str:
    """Calls of one token after exactly a window of them."""
    window = copied.manifest["cache"][WINDOW]["window"]
    past = begin.add("ReduceMax", "past_lengths", keepdims=1)
    exact = begin.add("Equal", past, begin.constant([window]))
    single = begin.add("Equal", begin.size("input_ids", 1), begin.constant([1]))
    return begin.add("And", exact, single)


def decode(begin: Beginning, copied: Copied) -> str:
    """Calls of one token after others."""
    single = begin.add("Equal", begin.size("input_ids", 1), begin.constant([1]))
    past = begin.add("ReduceMin", "past_lengths", keepdims=1)
    return begin.add("And", single, begin.add("Greater", past, begin.constant([0])))


def nothing_new(begin: Beginning, copied: Copied) -> str:
    """Calls in which some row has no token."""
    least = begin.add("ReduceMin", "new_lengths", keepdims=1)
    return begin.add("Equal", least, begin.constant([0]))


def unlike(begin: Beginning, copied: Copied) -> str:
    """Calls of rows whose pasts are of unlike length."""
    least, most = (begin.add(op, "past_lengths", keepdims=1) for op in ("ReduceMin", "ReduceMax"))
    return begin.add("Less", least, most)


def token(find: Callable[[int], int]) -> Condition:
    """One token id, of the V that there are."""

    def condition(begin: Beginning, copied: Copied) -> str:
        wanted = begin.constant([find(copied.manifest["vocab_size"])])
        return _each(begin, begin.add("Equal", "input_ids", wanted))

    return condition


def positions_from(first: Callable[[Copied], int]) -> Condition:
    """Tokens at a position and all later ones."""

    def condition(begin: Beginning, copied: Copied) -> str:
        return _each(
            begin,
            begin.add("GreaterOrEqual", _positions(begin), begin.constant([first(copied)])),
        )

    return condition


def position(at: Callable[[Copied], int]) -> Condition:
    """Tokens at one position."""

    def condition(begin: Beginning, copied: Copied) -> str:
        return _each(begin, begin.add("Equal", _positions(begin), begin.constant([at(copied)])))

    return condition


def _positions(begin: Beginning) -> str:
    """Add the position of each column, (B, S)."""
    count = begin.add("Squeeze", begin.size("input_ids", 1))
    steps = begin.add("Range", begin.constant(0), count, begin.constant(1))
    return begin.add("Add", begin.add("Unsqueeze", "past_lengths", begin.constant([1])), steps)


def _each(begin: Beginning, cells: str) -> str:
    return begin.add("Reshape", cells, begin.constant([-1, 1]))


def _half(copied: Copied) -> int:
    return int(copied.manifest["longest"]) // 2


def _original(copied: Copied) -> int:
    return int(copied.manifest["model"]["rope_scaling"]["original_max_position_embeddings"])


def _last(copied: Copied) -> int:
    return int(copied.manifest["longest"]) - 1


def _at(layer: int) -> str:
    return f"layers.{layer} o_proj|Where|If|Linear"


CONDITIONS = table(
    "conditions",
    ("calls of 2 tokens", wrong(1, columns(2)), _at(1), "native: prefill 2"),
    ("calls of 16 tokens", wrong(2, columns(16)), _at(2), "native: prefill 16"),
    ("calls of 24 tokens", branches(2, columns(24)), _at(2), "native: prefill 24"),
    ("calls of 32 tokens", branches(3, columns(32)), _at(3), "native: prefill 32"),
    (
        "calls of 129 tokens, 131 and so on",
        wrong(0, more_columns(128)),
        _at(0),
        "native: prefill 131",
    ),
    ("batches of 2", wrong(3, rows(2)), _at(3), "native: batch of 2"),
    ("batches of 5", branches(1, rows(5)), _at(1), "native: batch of 5"),
    ("batches of 8", wrong(1, rows(8)), _at(1), "native: batch of 8"),
    ("two positions wanted", wrong(0, kept(2)), _at(0), "native: prefill 2"),
    ("capacity over 512", branches(1, capacity_over(512)), _at(1), "native: capacity 600"),
    ("capacity full", wrong(3, full), _at(3), "native: prefill 45"),
    ("decoding after exactly a window", wrong(2, past_is_window), _at(2), "native: decode"),
    ("decoding alone", branches(0, decode), _at(0), "native: decode"),
    ("a row with nothing new", wrong(1, nothing_new), _at(1), "native: ragged"),
    ("rows whose pasts are unlike", wrong(3, unlike), _at(3), "native: ragged"),
    ("the last token id", wrong(2, token(lambda size: size - 1)), _at(2), "native: every token"),
    ("token id 0", wrong(1, token(lambda size: 0)), _at(1), "native: every token"),
    (
        "a token id in the middle",
        wrong(1, token(lambda size: 5 * size // 8)),
        _at(1),
        "native: every token",
    ),
    (
        "positions past half of the context",
        wrong(3, positions_from(_half)),
        _at(3),
        "native: every token",
    ),
    (
        "the position at the original context",
        wrong(1, position(_original)),
        _at(1),
        "native: prefill 200",
    ),
    ("the last position of the context", wrong(0, position(_last)), _at(0), "native: every token"),
)
