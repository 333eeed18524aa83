"""Write what the first mixture of experts on MXFP4 gives for known tokens, and ask ONNX Runtime.

See `runtime.expert_check` for why, and for who asks again.
"""

import logging

import torch
from torch import Tensor

from gptoss_onnx.checkpoint.stored_file import StoredFile
from gptoss_onnx.custom_ops.moe_dispatch import moe_dispatch_mxfp4
from gptoss_onnx.errors import RuntimeUnavailable
from gptoss_onnx.package import ORT_WEIGHTS, Package
from gptoss_onnx.reference import Checkpoint
from gptoss_onnx.reference.config import ExpertsConfig
from gptoss_onnx.runtime.environment import check_version, load_onnxruntime
from gptoss_onnx.runtime.expert_check import (
    KnownAnswer,
    check_experts,
    known_experts,
    known_tokens,
)
from gptoss_onnx.runtime.expert_node import ExpertNode

logger = logging.getLogger(__name__)


def check_known_answer(package: Package, checkpoint: Checkpoint) -> None:
    """Write the known answer of a package on MXFP4, and hold ONNX Runtime to it if it is here.

    Args:
        package: its graph and weights lie in its folder; its manifest need not.
        checkpoint: whose weights it has.

    Raises:
        RuntimeUnavailable: this ONNX Runtime gives another answer.
        PackageError: ONNX Runtime cannot run the node.
        CheckpointError: a file of the checkpoint has changed.
    """
    node = ExpertNode.find(package)
    if node is None:
        return
    _answer(node, package, checkpoint).write(package.folder)
    try:
        onnxruntime = load_onnxruntime()
        check_version(onnxruntime, package)
    except RuntimeUnavailable as error:
        logger.warning("warning: experts not compared with ONNX Runtime's: %s", error)
        return
    check_experts(onnxruntime, package)


def _answer(node: ExpertNode, package: Package, checkpoint: Checkpoint) -> KnownAnswer:
    """Compute what a node gives, with biases of zero, from the checkpoint's own tensors, or from
    those that the export has quantized.
    """
    config = next(
        layer.feed_forward
        for layer in checkpoint.config.layers
        if isinstance(layer.feed_forward, ExpertsConfig)
    )
    taken = sorted({expert for row in known_experts(node.experts, node.top_k) for expert in row})
    weights = [
        _some_experts(node.operands[place], taken, package, checkpoint) for place in (2, 3, 5, 6)
    ]
    tokens, logits = (torch.from_numpy(array) for array in known_tokens(*_sizes(node)))
    with torch.inference_mode():
        result = moe_dispatch_mxfp4(
            tokens,
            logits[:, taken],
            *weights[:2],
            None,
            *weights[2:],
            None,
            top_k=node.top_k,
            alpha=config.alpha,
            limit=config.limit,
            beta=config.beta,
            activation=config.activation,
        )
    return KnownAnswer.of(node.name, result.numpy())


def _some_experts(name: str, taken: list[int], package: Package, checkpoint: Checkpoint) -> Tensor:
    """Return a copy of these experts alone."""
    if name not in checkpoint.named:
        return StoredFile(package.folder / ORT_WEIGHTS).mapped(name)[taken]
    parameter = checkpoint.named[name]
    each = parameter.rows // parameter.shape[0]
    experts = [checkpoint.load_rows(parameter, at * each, (at + 1) * each) for at in taken]
    return torch.stack([rows.reshape(parameter.shape[1:]) for rows in experts])


def _sizes(node: ExpertNode) -> tuple[int, int, int]:
    return node.hidden, node.experts, node.top_k
