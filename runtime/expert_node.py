"""ExpertNode: one mixture of experts out of a package's graph, as a model of its own.

Its bytes are those of the graph, node and weights alike; only what flows into it becomes an input.
ONNX's fields: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from gptoss_onnx.errors import PackageError
from gptoss_onnx.files import read_file
from gptoss_onnx.package import Package
from gptoss_onnx.runtime.graph_file import (
    FIELDS_LIMIT,
    GRAPH_LIMIT,
    Initializer,
    Node,
    read_initializer,
    read_node,
)
from gptoss_onnx.runtime.onnx_fields import GraphField, ModelField
from gptoss_onnx.runtime.protobuf import Reader, as_bytes, bytes_field, number_field

_WEIGHTS = (2, 3, 5, 6)  # inputs of QMoE that are blocks and scales; 4 and 7 are biases
_BIASES = (4, 7)
_INPUTS = 8
_FLOAT = 1  # TensorProto.DataType


@dataclass(frozen=True)
class ExpertNode:
    """A QMoE node on MXFP4, the first of its graph.

    Attributes:
        name: the node's.
        operands: names of its inputs: hidden, router's logits, gate and up with scales and bias,
            down with scales and bias; empty where it has none.
        output: name of its output.
        hidden, experts, top_k: Hd, E and k.
        biases: name and width of each bias, (E, width).
        node: the NodeProto's bytes.
        initializers: the TensorProtos' bytes of its weights.
        head: the ModelProto's IR version and operator sets, as they are encoded.
    """

    name: str
    operands: tuple[str, ...]
    output: str
    hidden: int
    experts: int
    top_k: int
    biases: tuple[tuple[str, int], ...]
    node: bytes
    initializers: tuple[bytes, ...]
    head: bytes

    @classmethod
    def find(cls, package: Package) -> Self | None:
        """Return the first one of a package's graph, None if it has none.

        Raises PackageError if it has not the weights that an export gives it.
        """
        content = read_file(package.graph, GRAPH_LIMIT, PackageError)
        try:
            return cls._parse(memoryview(content))
        except (ValueError, KeyError, IndexError) as error:
            raise PackageError(
                f"{package.graph}: not a graph of this project ({error}); export the package again"
            ) from error

    @classmethod
    def _parse(cls, model: memoryview) -> Self | None:
        reader = Reader(FIELDS_LIMIT)
        nodes: list[tuple[Node, memoryview]] = []
        tensors: dict[str, tuple[Initializer, memoryview]] = {}
        for number, value in reader.fields(reader.only(model, ModelField.GRAPH)):
            if number == GraphField.NODE and not nodes:
                node = read_node(reader, as_bytes(value))
                if node.op == "QMoE" and node.texts.get("quant_type") == b"fp4":
                    nodes.append((node, as_bytes(value)))
            elif number == GraphField.INITIALIZER:
                tensor = read_initializer(reader, as_bytes(value))
                tensors[tensor.name] = (tensor, as_bytes(value))
        if not nodes:
            return None
        head = b"".join(
            number_field(number, value) if isinstance(value, int) else bytes_field(number, value)
            for number, value in reader.fields(model)
            if number in (ModelField.IR_VERSION, ModelField.OPSET_IMPORT)
        )
        return cls._of(*nodes[0], tensors, head)

    @classmethod
    def _of(
        cls,
        node: Node,
        encoded: memoryview,
        tensors: Mapping[str, tuple[Initializer, memoryview]],
        head: bytes,
    ) -> Self:
        (output,) = node.outputs
        if len(node.inputs) > _INPUTS:
            raise ValueError(
                f"found a QMoE of {len(node.inputs)} inputs, expected {_INPUTS} at most"
            )
        operands = node.inputs + ("",) * (_INPUTS - len(node.inputs))
        missing = [operands[place] for place in _WEIGHTS if operands[place] not in tensors]
        if missing:
            raise ValueError(f"found no initializer {missing[0]!r:.80}, which QMoE multiplies")
        up, down = (tensors[operands[place]][0].shape for place in (2, 5))
        if len(up) != 3 or len(down) != 3:
            raise ValueError(f"found experts of the shapes {up} and {down}, expected (E, N, K/2)")
        widths = (up[1], down[1])
        biases = zip((operands[place] for place in _BIASES), widths, strict=True)
        return cls(
            name=node.name,
            operands=operands,
            output=output,
            hidden=down[1],
            experts=up[0],
            top_k=node.attributes["k"],
            biases=tuple((name, width) for name, width in biases if name),
            node=bytes(encoded),
            initializers=tuple(bytes(tensors[operands[place]][1]) for place in _WEIGHTS),
            head=head,
        )

    def model(self, tokens: int) -> bytes:
        """Return a ModelProto of this node alone for so many tokens."""
        shapes = {
            self.operands[0]: (tokens, self.hidden),
            self.operands[1]: (tokens, self.experts),
            **{name: (self.experts, width) for name, width in self.biases},
        }
        graph = [
            bytes_field(GraphField.NODE, self.node),
            bytes_field(GraphField.NAME, b"experts"),
            *(bytes_field(GraphField.INITIALIZER, tensor) for tensor in self.initializers),
            *(bytes_field(GraphField.INPUT, _value(name, shape)) for name, shape in shapes.items()),
            bytes_field(GraphField.OUTPUT, _value(self.output, (tokens, self.hidden))),
        ]
        return self.head + bytes_field(ModelField.GRAPH, b"".join(graph))


def _value(name: str, shape: tuple[int, ...]) -> bytes:
    """Return a ValueInfoProto of a float32 tensor: name 1, type 2; of TypeProto tensor_type 1; of
    that elem_type 1 and shape 2; of that dim 1; of that dim_value 1.
    """
    sizes = b"".join(bytes_field(1, number_field(1, size)) for size in shape)
    tensor = number_field(1, _FLOAT) + bytes_field(2, sizes)
    return bytes_field(1, name.encode()) + bytes_field(2, bytes_field(1, tensor))
