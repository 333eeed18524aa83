"""transformers' own gpt-oss, the implementation outside this project that the reference and
packages are held to.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import GptOssForCausalLM, Mxfp4Config
from transformers.utils import logging

from gptoss_onnx.reference import DecoderConfig

logging.disable_progress_bar()


def load_hugging_face(folder: Path, mxfp4: bool) -> GptOssForCausalLM:
    """Load a checkpoint in float32 with eager attention; MXFP4 is dequantized on loading, which is
    exact.
    """
    options = {"quantization_config": Mxfp4Config(dequantize=True)} if mxfp4 else {}
    model = GptOssForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", **options
    )
    return model.float().eval()


def give_dense_int8(model: GptOssForCausalLM, file: Path) -> None:
    """Replace the projections' weights by what the 8-bit ones of a package stand for."""
    stored = load_file(file)
    for name, weight in stored.items():
        projection, _, kind = name.rpartition(".")
        if kind == "weight_int8":
            blocks = weight.float().unflatten(1, (-1, 32)) * stored[
                f"{projection}.weight_scales"
            ].unsqueeze(2)
            # lm_head is tied no more
            model.get_submodule(projection).weight = torch.nn.Parameter(blocks.flatten(1))


@torch.inference_mode()
def hugging_face_logits(model: GptOssForCausalLM, token_ids: Sequence[int]) -> torch.Tensor:
    """Return the logits of every position of one sequence, (T, V), from one pass without a
    cache.
    """
    return model(input_ids=torch.tensor([token_ids]), use_cache=False).logits[0]


def random_tokens(config: DecoderConfig, count: int, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(config.vocab_size, (count,), generator=generator).tolist()
