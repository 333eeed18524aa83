"""How many bytes one decode step must read, from the graph's nodes and initializers alone.

At batch 1 a step multiplies every dense weight once and the weights of the experts that its token
is routed to. It also reads one row of each table that it gathers from, such as the embedding, and
the cached keys and values that its query sees. These bytes divided by the read bandwidth of the
machine are the memory floor: no decode is faster, unless a cache of the processor holds the
weights.

Bytes are counted as they lie in the package. Portable bodies may read more (float32 copies that
ONNX Runtime makes); what must be read is the same.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from gptoss_onnx.errors import PackageError
from gptoss_onnx.manifest import CacheLayer
from gptoss_onnx.runtime.cache_layout import slot_bytes
from gptoss_onnx.runtime.graph_file import GraphFile, Initializer, Node

# The attribute of a mixture of experts that says how many a token takes. Its initializers all have
# shape (E, …), but for those of the op whose matrices lie apart: three for each expert.
_SEPARATE = "MoEDispatchSeparate"
_TOP_K = {
    "MoEDispatch": "top_k",
    "MoEDispatchMXFP4": "top_k",
    _SEPARATE: "top_k",
    "QMoE": "k",
    "MoE": "k",
}
_KEEP_SHAPE = ("Cast", "Identity")


@dataclass(frozen=True)
class WeightBytes:
    """Bytes of weights that one token at batch 1 needs."""

    dense: int
    experts: int  # those of top_k experts of each layer
    embedding: int  # one row of each table

    @property
    def total(self) -> int:
        """All of them."""
        return self.dense + self.experts + self.embedding


def weight_bytes(graph: GraphFile) -> WeightBytes:
    """Return what a token reads of the graph's initializers.

    An initializer that is used twice counts once, by its largest use; so a tied embedding counts as
    dense, because the logits need all of it. Raises PackageError if an initializer of a mixture of
    experts has no axis for the experts.
    """
    largest: dict[str, tuple[int, str]] = {}
    for name, share in _uses(graph):
        largest[name] = max(share, largest.get(name, (0, "")))
    sums = dict.fromkeys(("dense", "experts", "embedding"), 0)
    for count, kind in largest.values():
        sums[kind] += count
    return WeightBytes(**sums)


def read_inside(graph: GraphFile) -> int:
    """Count the initializers that no node of the main graph reads, but only loops and branches:
    nobody can say how much of them a token needs, and `weight_bytes` leaves them out.
    """
    read = {name for node in graph.nodes for name in node.inputs}
    return len(graph.initializers.keys() - read)


def cache_bytes(layers: Sequence[CacheLayer], kv_dtype: str, past: int) -> int:
    """Return the bytes of keys and values that the query after `past` tokens sees.

    In a window layer it sees the window. Its own key and value do not count, because the step has
    just written them.
    """
    return sum(
        slot_bytes(layer, kv_dtype) * (min(past, layer.window - 1) if layer.window else past)
        for layer in layers
    )


def mixtures(graph: GraphFile) -> Counter[tuple[int, int]]:
    """Count the mixtures of experts by how many experts they have and how many a token takes."""
    stands_for = _sources(graph)
    found: Counter[tuple[int, int]] = Counter()
    for node in graph.nodes:
        if node.op in _TOP_K:
            found[_experts_of(node, stands_for), node.attributes[_TOP_K[node.op]]] += 1
    return found


def _experts_of(node: Node, stands_for: Mapping[str, Initializer]) -> int:
    weights = [stands_for[name] for name in node.inputs if name in stands_for]
    return len(weights) // 3 if node.op == _SEPARATE else weights[0].shape[0]


def _uses(graph: GraphFile) -> Iterator[tuple[str, tuple[int, str]]]:
    """Yield each use of an initializer: its name, the bytes a token needs of it, and what kind they
    are.
    """
    stands_for = _sources(graph)
    for node in graph.nodes:
        if node.op in _KEEP_SHAPE and node.domain == "":
            continue
        for place, value in enumerate(node.inputs):
            if value in stands_for:
                source = stands_for[value]
                yield source.name, _share(node, place, source, stands_for)


def _share(
    node: Node, place: int, initializer: Initializer, stands_for: Mapping[str, Initializer]
) -> tuple[int, str]:
    first = initializer.shape[0] if initializer.shape else 0
    if node.op in _TOP_K:
        taken = node.attributes[_TOP_K[node.op]]
        experts = _experts_of(node, stands_for) if node.op == _SEPARATE else first
        if experts < taken:
            raise PackageError(
                f"{initializer.name}: found shape {initializer.shape}, expected an expert axis of "
                f"at least {taken} first; export the package again"
            )
        # Of matrices that lie apart each counts with its expert's chance to be chosen.
        return initializer.nbytes * taken // experts, "experts"
    if node.op == "Gather" and place == 0 and first > 0 and node.attributes.get("axis", 0) == 0:
        return initializer.nbytes // first, "embedding"
    return initializer.nbytes, "dense"


def _sources(graph: GraphFile) -> Mapping[str, Initializer]:
    """Return the initializer that each value stands for: itself, or one that was only cast."""
    stands_for = dict(graph.initializers)
    for node in graph.nodes:  # in the order they run
        if node.op in _KEEP_SHAPE and node.domain == "" and node.inputs[0] in stands_for:
            stands_for[node.outputs[0]] = stands_for[node.inputs[0]]
    return stands_for
