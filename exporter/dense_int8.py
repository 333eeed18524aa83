"""Graph pass of `export --dense int8`: the projections of attention and lm_head become LinearInt8.

Matches every Linear whose weight is that of q_proj, k_proj, v_proj, o_proj or lm_head (or the
embedding, where lm_head is tied to it) and whose input width is a multiple of 32, and gives it
8-bit weights from a new file. Leaves alone: the router, the experts, the embedding's lookup,
biases, and projections of other widths, with the checkpoint's weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from gptoss_onnx.checkpoint.tensors import TensorInfo
from gptoss_onnx.custom_ops import DOMAIN
from gptoss_onnx.custom_ops.linear_int8 import BLOCK
from gptoss_onnx.errors import InputError
from gptoss_onnx.exporter.int8_file import Projection, write_int8_file
from gptoss_onnx.exporter.trace import attach_bodies
from gptoss_onnx.progress import Progress
from gptoss_onnx.reference import Checkpoint
from gptoss_onnx.reference.dense_int8 import INT8_FILE, LM_HEAD, int8_names

_KINDS = {"q_proj": "q", "k_proj": "k", "v_proj": "v", "o_proj": "o", LM_HEAD: LM_HEAD}
_EMBEDDING = "model.embed_tokens"


@dataclass(frozen=True)
class _Match:
    node: ir.Node
    name: str  # of the projection
    kind: str
    source: TensorInfo

    @property
    def depth(self) -> int:
        """The input width."""
        return self.source.shape[1]


def convert_dense(model: ir.Model, checkpoint: Checkpoint, folder: Path, progress: Progress) -> str:
    """Rewrite `model` in place and write the weights into `folder`; returns what was done, as the
    manifest says it.

    `progress` hears how many bytes of the checkpoint are converted.

    Raises:
        InputError: no projection has an input width that is a multiple of 32.
        PackageError, CheckpointError: as from `write_int8_file`.
    """
    matches = [match for node in model.graph for match in _match(node, checkpoint)]
    chosen = [match for match in matches if match.depth % BLOCK == 0]
    if not chosen:
        widths = ", ".join(map(str, sorted({match.depth for match in matches})))
        raise InputError(
            f"--dense int8: found input widths {widths}, expected a multiple of {BLOCK} for at "
            "least one of q, k, v, o "
            "and lm_head; export with --dense checkpoint"
        )
    projections = [Projection(match.name, match.source) for match in chosen]
    tensors = write_int8_file(folder / INT8_FILE, projections, progress)
    for match in chosen:
        _replace(model.graph, match, tensors)
    attach_bodies(model)
    left = [match for match in matches if match not in chosen]
    return _describe(chosen, left)


def _match(node: ir.Node, checkpoint: Checkpoint) -> list[_Match]:
    if node.domain != DOMAIN or node.op_type != "Linear":
        return []
    weight = node.inputs[1]
    assert weight is not None
    assert weight.name is not None
    projection = weight.name.removesuffix(".weight")
    name = LM_HEAD if projection == _EMBEDDING else projection
    kind = _KINDS.get(name.rpartition(".")[2])
    return [] if kind is None else [_Match(node, name, kind, checkpoint.tensors[weight.name])]


def _replace(graph: ir.Graph, match: _Match, tensors: Mapping[str, ir.ExternalTensor]) -> None:
    old = match.node
    operands = [_initializer(graph, tensors[name]) for name in int8_names(match.name)]
    bias = old.inputs[2:]  # none, or an omitted one, or one
    assert old.name is not None
    name = old.name.replace("Linear", "LinearInt8")
    new = ir.Node(
        DOMAIN, "LinearInt8", [old.inputs[0], *operands, *bias], name=name, version=old.version
    )
    found, output = old.outputs[0], new.outputs[0]
    output.name = f"{name}.output"
    output.type, output.shape = found.type, found.shape
    ir.convenience.replace_nodes_and_values(graph, old, [old], [new], [found], [output])
    if not graph.initializers[match.source.name].uses():  # a tied embedding is still looked up
        graph.initializers.pop(match.source.name)


def _initializer(graph: ir.Graph, tensor: ir.ExternalTensor) -> ir.Value:
    value = ir.Value(
        name=tensor.name,
        shape=ir.Shape(tensor.shape),
        type=ir.TensorType(tensor.dtype),
        const_value=tensor,
    )
    graph.register_initializer(value)
    return value


def _describe(chosen: list[_Match], left: list[_Match]) -> str:
    text = f"{_listed(chosen)} in int8 (block {BLOCK})"
    if left:
        text += (
            f"; {_listed(left)} as in the checkpoint, whose input width is no multiple of {BLOCK}"
        )
    return text


def _listed(matches: list[_Match]) -> str:
    kinds = [kind for kind in _KINDS.values() if any(match.kind == kind for match in matches)]
    return " and ".join(filter(None, (", ".join(kinds[:-1]), kinds[-1])))
