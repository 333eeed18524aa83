"""Graph pass of the ort target: projections become Gemm on float32 weights.

Matches every Linear. Its weight is widened to float32, which loses nothing; ONNX Runtime's CPU
provider has no matrix product in bfloat16, and a Cast in the graph would be folded into a copy in
anonymous memory, where a float32 file stays mapped. A transposed weight stays so. Leaves alone: the
bias, which the graph casts already.
"""

import onnx_ir as ir

from gptoss_onnx.custom_ops import DOMAIN
from gptoss_onnx.exporter.nodes import make_node, replace
from gptoss_onnx.exporter.ort.weights import OrtWeights


def lower_linear(model: ir.Model, weights: OrtWeights) -> None:
    """Replace every Linear of `model` in place; the weights are added to `weights`."""
    for node in [node for node in model.graph if (node.domain, node.op_type) == (DOMAIN, "Linear")]:
        hidden, weight, *bias = node.inputs
        assert weight is not None
        wide = weights.float32(model.graph, weight)
        attributes = {} if "transposed" in node.attributes else {"transB": 1}
        replace(model.graph, node, [make_node(node, "Gemm", [hidden, wide, *bias], attributes)])
