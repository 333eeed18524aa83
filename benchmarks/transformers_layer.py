"""The experts of Hugging Face transformers' gpt-oss, eager, on the same weights decoded to
bfloat16.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from ggml_layer import Sizes
from numpy.typing import NDArray
from transformers import GptOssConfig
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssExperts

from gptoss_onnx.custom_ops.mxfp4 import decode_mxfp4

Floats = NDArray[np.float32]
Weights = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]


class Experts:
    """Layers of experts in bfloat16, the precision that the published model is run in.

    Args:
        sizes: sizes of each layer.
        weights: per layer, blocks and scales of gate_up, then of down, as a checkpoint holds them.
        threads: threads that compute.
    """

    def __init__(self, sizes: Sizes, weights: Iterable[Weights], threads: int) -> None:
        torch.set_num_threads(threads)
        self._top_k = sizes.top_k
        self._layers = [_experts(sizes, layer) for layer in weights]
        self._outputs: list[torch.Tensor] = []

    @torch.inference_mode()
    def run(self, hidden: Floats, routers: Sequence[Floats]) -> None:
        """Compute all layers on hidden (N, Hd), each with its router logits (N, E)."""
        tokens = torch.from_numpy(hidden).bfloat16()
        self._outputs = []
        for experts, router in zip(self._layers, routers, strict=True):
            logits, chosen = torch.topk(torch.from_numpy(router), self._top_k, dim=-1)
            self._outputs.append(experts(tokens, chosen, torch.softmax(logits, dim=-1).bfloat16()))

    def output(self, layer: int) -> Floats:
        """Return a layer's output (N, Hd)."""
        return self._outputs[layer].float().numpy()


def _experts(sizes: Sizes, weights: Weights) -> GptOssExperts:
    config = GptOssConfig(
        hidden_size=sizes.hidden,
        intermediate_size=sizes.width,
        num_local_experts=sizes.experts,
        num_experts_per_tok=sizes.top_k,
    )
    # what a whole model would set; a lone module warns without it
    config._experts_implementation = "eager"
    with torch.device("meta"):
        experts = GptOssExperts(config)
    experts = experts.bfloat16().to_empty(device="cpu").eval()
    gate_up_blocks, gate_up_scales, down_blocks, down_scales = map(torch.from_numpy, weights)
    with torch.no_grad():
        for parameter in (experts.gate_up_proj_bias, experts.down_proj_bias):
            parameter.zero_()
        for expert in range(sizes.experts):
            experts.gate_up_proj[expert] = decode_mxfp4(
                gate_up_blocks[expert], gate_up_scales[expert]
            ).T
            experts.down_proj[expert] = decode_mxfp4(down_blocks[expert], down_scales[expert]).T
    return experts
