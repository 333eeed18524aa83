"""Caches: keys and values that are written or read at the wrong place."""

import numpy as np
from onnx import TensorProto

from mutants.copied import Copied
from mutants.edits import exchange, read, rename_outputs, value_of
from mutants.mutant import Change, table
from mutants.nodes import HEALTHY, Beginning, behind, constant, make, take_instead

ATTENTION = "self_attn.SinkAttention"
KEYS, VALUES = 3, 4  # places of the past among the inputs of SinkAttention
LENGTHS = 5


def _lengths(layer: int, more: int) -> Change:
    """Let a layer take the past for longer than it is."""

    def change(copied: Copied) -> None:
        begin = Beginning(copied.model.graph)
        longer = begin.add("Add", "past_lengths", begin.constant([more]))
        read(f"layers.{layer}.{ATTENTION}", LENGTHS, longer)(copied)

    return change


def _first_row_for_all(name: str) -> Change:
    """Let every row read the past of the first."""

    def change(copied: Copied) -> None:
        graph, begin = copied.model.graph, Beginning(copied.model.graph)
        rows = begin.add("Mul", "past_lengths", begin.constant([0]))
        first = begin.add("Gather", "mutant.past", rows, axis=0)
        take_instead(graph, name, first)
        take_instead(graph, "mutant.past", name)

    return change


def _kept(copied: Copied) -> None:
    """Give back the past keys of a full layer as they came."""
    graph = copied.model.graph
    node = copied.node(f"layers.3.{ATTENTION}")
    node.output[1] = "mutant.never_read"
    past = value_of(copied, "past_key_values.3.key")
    graph.node.append(make("Identity", [past], "present.3.key"))


def _narrow(present: str) -> Change:
    """Round what is cached to float16, and back."""

    def change(copied: Copied) -> None:
        graph = copied.model.graph
        node = next(node for node in graph.node if present in node.output)
        narrow = make("Cast", [HEALTHY], "mutant.narrow", to=TensorProto.FLOAT16)
        wide = make("Cast", ["mutant.narrow"], "mutant.wide", to=TensorProto.FLOAT)
        behind(graph, node, [narrow, wide], list(node.output).index(present))

    return change


def _scaled(present: str, factor: float) -> Change:
    def change(copied: Copied) -> None:
        graph = copied.model.graph
        node = next(node for node in graph.node if present in node.output)
        scaled = make("Mul", [HEALTHY, constant(graph, factor, np.float32)], "mutant.scaled")
        behind(graph, node, [scaled], list(node.output).index(present))

    return change


CACHES = table(
    "caches",
    ("tokens go to the next slot", _lengths(1, 1), "layers.1 SinkAttention", "native: again"),
    (
        "a window's tokens go to the next slot",
        _lengths(2, 1),
        "layers.2 SinkAttention",
        "native: again",
    ),
    (
        "values of another layer are read",
        exchange((f"layers.1.{ATTENTION}", VALUES), (f"layers.3.{ATTENTION}", VALUES)),
        "layers.1|layers.3 SinkAttention|past_key_values",
        "native: decode",
    ),
    (
        "values of another layer are written",
        rename_outputs("present.1.value", "present.3.value"),
        "layers.1|layers.3|present.1|present.3",
        "native: decode",
    ),
    (
        "past keys and values exchanged",
        exchange((f"layers.0.{ATTENTION}", KEYS), (f"layers.0.{ATTENTION}", VALUES)),
        "layers.0 SinkAttention|past_key_values",
        "native: decode",
    ),
    (
        "new keys and values exchanged in the cache alone",
        rename_outputs("present.0.key", "present.0.value"),
        "layers.0|present.0",
        "native: decode",
    ),
    (
        "every row reads the first one's past",
        _first_row_for_all("past_key_values.1.key"),
        "layers.1 SinkAttention|Gather|past_key_values",
        "native: batch of 2",
    ),
    (
        "keys are never written",
        _kept,
        "layers.3|present.3 SinkAttention|Identity|key",
        "native: decode",
    ),
    (
        "keys are rounded when they are cached",
        _narrow("present.1.key"),
        "layers.1|present.1 SinkAttention|Cast|key",
        "native: decode",
    ),
    (
        "values grow a thousandth with each call",
        _scaled("present.0.value", 1.001),
        "layers.0|present.0 SinkAttention|Mul|value",
        "native: decode",
    ),
)
