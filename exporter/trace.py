"""Trace the PyTorch reference into an ONNX graph of `ai.gptoss` nodes and standard ops, without a
weight byte.

Legend: B batch, S new tokens, T kept positions, K kv heads, C cache capacity, D head dim.
"""

import logging
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import onnx_ir as ir
import onnxscript.optimizer
import torch
from onnxscript.values import Op, Opset
from torch.export import Dim

from gptoss_onnx.collection import no_collection
from gptoss_onnx.custom_ops import DOMAIN, DOMAIN_VERSION
from gptoss_onnx.custom_ops.bodies import OPSET_VERSION, Use, function_protos
from gptoss_onnx.custom_ops.schemas import SIGNATURES
from gptoss_onnx.exporter.capture import capture
from gptoss_onnx.reference.decoder import Decoder

# The ops that the reference calls; int8_projections.py puts LinearInt8 in the place of a Linear.
_TORCH_NAMES = {
    "SinkAttention": "sink_attention",
    "MoEDispatch": "moe_dispatch",
    "MoEDispatchMXFP4": "moe_dispatch_mxfp4",
    "Linear": "linear",
}


def trace(model: Decoder, kv_dtype: torch.dtype = torch.float32) -> ir.Model:
    """Return the graph of one call of `model`, whose parameters are on the meta device.

    Initializers have the model's names, dtypes and shapes and no value; the constants that the
    model computes have theirs. Each custom op is one node, with its portable body among the
    functions.

    Args:
        model: the reference, made with `from_checkpoint(..., device="meta")`.
        kv_dtype: element type of the caches.
    """
    layers = model.config.num_layers
    constants = dict(model.named_buffers())
    for name, constant in constants.items():
        setattr(model, name, constant.to("meta"))
    example, shapes = _example_call(model, kv_dtype)
    inputs = ["input_ids", "past_lengths", "new_lengths", "logit_positions"]
    with (
        warnings.catch_warnings(),
        _Quiet("torch.onnx", "torch.export", "onnxscript", "onnx_ir"),
        no_collection(),
    ):
        # about deprecations inside the exporter, nothing a user can act on
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            capture(model, example, shapes),
            example,
            dynamic_shapes=shapes,
            input_names=[*inputs, *_cache_names("past_key_values", layers)],
            output_names=["logits", *_cache_names("present", layers)],
            opset_version=OPSET_VERSION,
            dynamo=True,
            optimize=False,  # with meta tensors the exporter's own optimizer fails
            verbose=False,
            custom_translation_table=_translations(),
        )
        assert program is not None
        traced = program.model
        for name, value in traced.graph.initializers.items():
            known = name in constants
            value.const_value = ir.tensor(constants[name].numpy(), name=name) if known else None
        onnxscript.optimizer.optimize_ir(traced)
    for name, constant in constants.items():
        setattr(model, name, constant)
    attach_bodies(traced)
    return traced


def _example_call(model: Decoder, kv_dtype: torch.dtype) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return example arguments on the meta device and the symbolic dimensions of each."""
    # distinct, so that no two symbols are taken for one
    batch, new, kept, capacity, ring = 2, 3, 5, 11, 13

    def ints(*shape: int) -> torch.Tensor:
        return torch.empty(*shape, dtype=torch.int64, device="meta")

    cache = [
        (key.to("meta"), value.to("meta"))
        for key, value in model.new_cache(batch, capacity, ring, dtype=kv_dtype)
    ]
    example = (ints(batch, new), ints(batch), ints(batch), ints(batch, kept), cache)
    rows = {0: Dim("batch", min=1)}
    windows = [layer.attention.window for layer in model.config.layers]
    slots = {False: Dim("capacity", min=1), True: Dim("window_capacity", min=1)}
    layer_shapes = [({**rows, 2: slots[window > 0]},) * 2 for window in windows]
    shapes = (
        {**rows, 1: Dim("sequence", min=1)},
        rows,
        rows,
        {**rows, 1: Dim("kept", min=1)},
        layer_shapes,
    )
    return example, shapes


def _cache_names(prefix: str, layers: int) -> list[str]:
    return [f"{prefix}.{layer}.{part}" for layer in range(layers) for part in ("key", "value")]


def _translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Map each torch op to one node of its ONNX schema; an `OnnxFunction` here would be inlined and
    fail.
    """
    return {
        getattr(torch.ops.gptoss, _TORCH_NAMES[name]).default: _one_node(name)
        for name in _TORCH_NAMES
    }


def _one_node(name: str) -> Callable[..., Any]:
    signature = SIGNATURES[name]
    op = Op(Opset(DOMAIN, DOMAIN_VERSION), name, signature.schema)
    count = len(signature.inputs)
    names = [attribute.name for attribute in signature.attributes]

    def translate(*arguments: Any, **named: Any) -> Any:
        """Take a torch call, which leaves out trailing arguments at their defaults."""
        inputs = list(arguments[:count])
        while inputs[-1] is None:
            inputs.pop()
        attributes = dict(zip(names, arguments[count:], strict=False)) | named
        return op(*inputs, **signature.stated(attributes))

    return translate


def attach_bodies(model: ir.Model) -> None:
    """Give `model` the portable body of each custom op it uses, and of no other.

    onnx.reference refuses nodes that leave out trailing inputs, and knows no defaults of a
    function. So a node then has as many inputs as its body, empty where it has none, and it states
    each attribute that another node of its op states.

    Raises:
        InputError: two nodes of one op would need different bodies.
    """
    model.functions.clear()
    nodes = [node for node in model.graph if node.domain == DOMAIN]
    _state_alike(nodes)
    uses = [_use_of(node) for node in nodes]
    for proto in function_protos(uses):
        function = ir.serde.deserialize_function(proto)
        model.functions[function.identifier()] = function
    for node in nodes:
        node.resize_inputs(len(model.functions[node.op_identifier()].inputs))
    model.graph.opset_imports[DOMAIN] = DOMAIN_VERSION


def _state_alike(nodes: Sequence[ir.Node]) -> None:
    """Let every node state the attributes that some node of its op states."""
    stated: defaultdict[str, set[str]] = defaultdict(set)
    for node in nodes:
        stated[node.op_type].update(node.attributes)
    for node in nodes:
        for attribute in SIGNATURES[node.op_type].attributes:
            name = attribute.name
            if name in stated[node.op_type] and name not in node.attributes:
                node.attributes[name] = ir.convenience.convert_attribute(name, attribute.default)


def _use_of(node: ir.Node) -> Use:
    inputs = zip(SIGNATURES[node.op_type].inputs, node.inputs, strict=False)
    shapes = {
        operand.name: _known_shape(value.shape) for operand, value in inputs if value is not None
    }
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    return Use(node.op_type, shapes, attributes, len(node.inputs))


def _known_shape(shape: ir.Shape | None) -> tuple[int | None, ...] | None:
    """Return a shape with None for every dimension that is no number."""
    if shape is None:
        return None
    return tuple(size if isinstance(size, int) else None for size in shape)


class _Quiet:
    """Raise the level of chatty loggers to ERROR inside the block."""

    def __init__(self, *names: str) -> None:
        self._loggers = [logging.getLogger(name) for name in names]

    def __enter__(self) -> None:
        self._levels = [logger.level for logger in self._loggers]
        for logger in self._loggers:
            logger.setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        for logger, level in zip(self._loggers, self._levels, strict=True):
            logger.setLevel(level)
