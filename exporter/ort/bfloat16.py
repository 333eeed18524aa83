"""Graph pass of the ort target for CUDA: attention and experts in bfloat16, everything else stays
in float32.

Matches every GroupQueryAttention and every QMoE, neither of which takes float32 on CUDA, and puts a
Cast at each of their borders that is not a cache, an integer or a quantized weight. Leaves alone:
residuals, norms, rotation, router, choice of experts and projections.

Bfloat16 and not float16: it holds every value of MXFP4 and every E8M0 scale, the sinks and biases
of gpt-oss checkpoints as they are, and any activation, where float16 ends at 65504 and, for scales,
at 2^-24.
"""

import onnx_ir as ir

from gptoss_onnx.exporter.nodes import CONTRIB

# Inputs that are activations, sinks or biases; output 0 is an activation in both.
_NARROWED = {"GroupQueryAttention": (0, 1, 2, 11), "QMoE": (0, 1, 4, 7)}


def lower_to_bfloat16(model: ir.Model) -> None:
    """Put the Casts in place; to be called after attention and experts are lowered."""
    graph = model.graph
    for node in [node for node in graph if node.domain == CONTRIB and node.op_type in _NARROWED]:
        for index in _NARROWED[node.op_type]:
            value = node.inputs[index]
            assert value is not None
            narrow = _cast(value, ir.DataType.BFLOAT16, f"{node.name}.Cast_input_{index}")
            graph.insert_before(node, narrow)
            node.replace_input_with(index, narrow.outputs[0])
        result = node.outputs[0]
        users = list(result.uses())
        wide = _cast(result, ir.DataType.FLOAT, f"{node.name}.Cast_output")
        wide.outputs[0].shape = result.shape
        wide.outputs[0].type, result.type = result.type, ir.TensorType(ir.DataType.BFLOAT16)
        graph.insert_after(node, wide)
        for user, index in users:
            user.replace_input_with(index, wide.outputs[0])


def _cast(value: ir.Value, to: ir.DataType, name: str) -> ir.Node:
    node = ir.node("Cast", [value], {"to": to}, name=name)
    node.outputs[0].name = f"{name}.output"
    return node
