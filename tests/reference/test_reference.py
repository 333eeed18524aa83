"""The PyTorch reference against transformers: one model, two implementations, float32."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from gptoss_onnx.reference import Decoder, DecoderConfig, open_checkpoint
from gptoss_onnx.reference.greedy import greedy
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_config
from support.hugging_face import hugging_face_logits, load_hugging_face, random_tokens
from support.tolerances import REFERENCE_LOGITS

BASE = tiny_config(num_hidden_layers=3)
PLAIN_ROPE = dataclasses.replace(
    BASE.rope,
    kind="default",
    factor=1.0,
    beta_fast=1.0,
    beta_slow=1.0,
    original_max_position_embeddings=BASE.max_position_embeddings,
    truncate=False,
    attention_factor=None,
)
LONG_ROPE = dataclasses.replace(
    BASE.rope,
    kind="yarn",
    theta=150000.0,
    factor=32.0,
    original_max_position_embeddings=4096,
    truncate=False,
)
SHAPES = {
    "as is": {},
    "six heads, two kv": {"num_heads": 6, "num_kv_heads": 2, "head_dim": 24},
    "window 1": {"window": 1},
    "every expert": {"num_experts": 3, "top_k": 3},
    "one expert": {"top_k": 1},
    "one kv head": {"num_heads": 5, "num_kv_heads": 1},
    "tied head": {"tie_word_embeddings": True},
    "no attention bias": {"attention_bias": False},
    "no YaRN": {"rope": PLAIN_ROPE},
    "full layers alone": {"layer_types": ("full_attention",) * 3},
    "rectangular experts": {"hidden_size": 96, "intermediate_size": 32},
}

CheckpointMaker = Callable[[DecoderConfig, str], Path]


@pytest.fixture
def checkpoint_of(tmp_path: Path) -> CheckpointMaker:
    def make(config: DecoderConfig, layout: str) -> Path:
        make_checkpoint(tmp_path / "checkpoint", config, layout=layout, seed=3)
        return tmp_path / "checkpoint"

    return make


@pytest.mark.parametrize("layout", ["hf-mxfp4", "hf-bf16"])
@pytest.mark.parametrize("shape", SHAPES)
def test_logits_equal_transformers(checkpoint_of: CheckpointMaker, shape: str, layout: str) -> None:
    config = dataclasses.replace(BASE, **SHAPES[shape])
    folder = checkpoint_of(config, layout)
    tokens = random_tokens(config, 50, seed=1)
    expected = hugging_face_logits(load_hugging_face(folder, layout == "hf-mxfp4"), tokens)
    with open_checkpoint(folder) as checkpoint:
        found = Decoder.from_checkpoint(checkpoint).score(tokens)
    assert expected.std() > 0.1  # a model that says something
    torch.testing.assert_close(found, expected, atol=REFERENCE_LOGITS, rtol=0)


def test_logits_equal_transformers_beyond_4096_tokens(checkpoint_of: CheckpointMaker) -> None:
    """Past the original context YaRN's ramp shows: `truncate: false` read as true would be far off
    here.
    """
    config = dataclasses.replace(
        BASE, num_layers=2, layer_types=BASE.layer_types[:2], rope=LONG_ROPE
    )
    config = dataclasses.replace(
        config, max_position_embeddings=131072, num_heads=2, num_kv_heads=1
    )
    folder = checkpoint_of(config, "hf-mxfp4")
    tokens = random_tokens(config, 5000, seed=2)
    expected = hugging_face_logits(load_hugging_face(folder, True), tokens)
    with open_checkpoint(folder) as checkpoint:
        found = Decoder.from_checkpoint(checkpoint).score(tokens)
    torch.testing.assert_close(found, expected, atol=REFERENCE_LOGITS, rtol=0)


@torch.inference_mode()
def test_greedy_over_the_ring_equals_transformers(checkpoint_of: CheckpointMaker) -> None:
    config = dataclasses.replace(BASE, window=8)
    folder = checkpoint_of(config, "hf-mxfp4")
    prompts = [random_tokens(config, count, seed=4) for count in (5, 19, 1)]
    model = load_hugging_face(folder, True)
    with open_checkpoint(folder) as checkpoint:
        found = greedy(Decoder.from_checkpoint(checkpoint), prompts, 40)
    for prompt, continuation in zip(prompts, found, strict=True):
        expected = model.generate(
            torch.tensor([prompt]), max_new_tokens=40, do_sample=False, eos_token_id=None
        )
        assert continuation == expected[0, len(prompt) :].tolist()


@torch.inference_mode()
def test_bfloat16_activations_follow_float32(checkpoint_of: CheckpointMaker) -> None:
    folder = checkpoint_of(BASE, "hf-mxfp4")
    tokens = random_tokens(BASE, 30, seed=5)
    with open_checkpoint(folder) as checkpoint:
        exact = Decoder.from_checkpoint(checkpoint).score(tokens)
        narrow = Decoder.from_checkpoint(checkpoint, compute=torch.bfloat16).score(tokens)
    assert narrow.dtype == torch.bfloat16
    correlation = torch.corrcoef(torch.stack((exact.flatten(), narrow.float().flatten())))[0, 1]
    assert correlation > 0.99


def test_meta_device_reads_no_weight(checkpoint_of: CheckpointMaker) -> None:
    with open_checkpoint(checkpoint_of(BASE, "hf-mxfp4")) as checkpoint:
        model = Decoder.from_checkpoint(checkpoint, device="meta")
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert set(model.state_dict()) == set(checkpoint.tensors)


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no CUDA device, or a PyTorch built without CUDA"
)
def test_cuda_equals_cpu(checkpoint_of: CheckpointMaker) -> None:
    tokens = random_tokens(BASE, 30, seed=6)
    with open_checkpoint(checkpoint_of(BASE, "hf-mxfp4")) as checkpoint:
        on_cpu = Decoder.from_checkpoint(checkpoint).score(tokens)
        on_gpu = Decoder.from_checkpoint(checkpoint, device="cuda").score(tokens)
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, atol=REFERENCE_LOGITS, rtol=0)
