"""The PyTorch reference against transformers: one model, two implementations, float32."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gptoss_onnx.reference import Decoder, open_checkpoint
from gptoss_onnx.reference.greedy import greedy
from gptoss_onnx.reference.synthetic import (
    make_checkpoint,
    preset_document,
    tiny_config,
    tiny_document,
)
from support.hugging_face import hugging_face_logits, load_hugging_face, random_tokens
from support.tolerances import REFERENCE_LOGITS

CONFIG = tiny_config()
SHAPES = {
    "as is": {},
    "six heads, two kv": {"num_attention_heads": 6, "head_dim": 24},
    "window 1": {"sliding_window": 1},
    "every expert": {"num_local_experts": 3},
    "one expert": {"num_experts_per_tok": 1},
    "one kv head": {"num_attention_heads": 5, "num_key_value_heads": 1},
    "tied head": {"tie_word_embeddings": True},
    "no attention bias": {"attention_bias": False},
    "no YaRN": {"rope_scaling": {"rope_type": "default"}},
    "full layers alone": {"layer_types": ["full_attention"] * 3},
    "rectangular experts": {"hidden_size": 96, "intermediate_size": 32},
}
LONG = {  # YaRN as the published models have it
    "max_position_embeddings": 131072,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "rope_scaling": preset_document("gpt-oss-20b")["rope_scaling"],
}

CheckpointMaker = Callable[..., Path]


@pytest.fixture
def checkpoint_of(tmp_path: Path) -> CheckpointMaker:
    def make(layout: str = "hf-mxfp4", layers: int = 3, **changes: Any) -> Path:
        document = tiny_document(layers=layers, **changes)
        make_checkpoint(tmp_path / "checkpoint", document, layout=layout, seed=3)
        return tmp_path / "checkpoint"

    return make


@pytest.mark.parametrize("layout", ["hf-mxfp4", "hf-bf16"])
@pytest.mark.parametrize("shape", SHAPES)
def test_logits_equal_transformers(checkpoint_of: CheckpointMaker, shape: str, layout: str) -> None:
    folder = checkpoint_of(layout, **SHAPES[shape])
    tokens = random_tokens(CONFIG, 50, seed=1)
    expected = hugging_face_logits(load_hugging_face(folder, layout == "hf-mxfp4"), tokens)
    with open_checkpoint(folder) as checkpoint:
        found = Decoder.from_checkpoint(checkpoint).score(tokens)
    assert expected.std() > 0.1  # a model that says something
    torch.testing.assert_close(found, expected, atol=REFERENCE_LOGITS, rtol=0)


def test_logits_equal_transformers_beyond_4096_tokens(checkpoint_of: CheckpointMaker) -> None:
    """Past the original context YaRN's ramp shows: `truncate: false` read as true would be far off
    here.
    """
    folder = checkpoint_of(layers=2, **LONG)
    tokens = random_tokens(CONFIG, 5000, seed=2)
    expected = hugging_face_logits(load_hugging_face(folder, True), tokens)
    with open_checkpoint(folder) as checkpoint:
        found = Decoder.from_checkpoint(checkpoint).score(tokens)
    torch.testing.assert_close(found, expected, atol=REFERENCE_LOGITS, rtol=0)


@torch.inference_mode()
def test_greedy_over_the_ring_equals_transformers(checkpoint_of: CheckpointMaker) -> None:
    folder = checkpoint_of(sliding_window=8)
    prompts = [random_tokens(CONFIG, count, seed=4) for count in (5, 19, 1)]
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
    folder = checkpoint_of()
    tokens = random_tokens(CONFIG, 30, seed=5)
    with open_checkpoint(folder) as checkpoint:
        exact = Decoder.from_checkpoint(checkpoint).score(tokens)
        narrow = Decoder.from_checkpoint(checkpoint, compute=torch.bfloat16).score(tokens)
    assert narrow.dtype == torch.bfloat16
    correlation = torch.corrcoef(torch.stack((exact.flatten(), narrow.float().flatten())))[0, 1]
    assert correlation > 0.99


def test_meta_device_reads_no_weight(checkpoint_of: CheckpointMaker) -> None:
    with open_checkpoint(checkpoint_of()) as checkpoint:
        model = Decoder.from_checkpoint(checkpoint, device="meta")
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert set(model.state_dict()) == set(checkpoint.tensors)


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no CUDA device, or a PyTorch built without CUDA"
)
def test_cuda_equals_cpu(checkpoint_of: CheckpointMaker) -> None:
    tokens = random_tokens(CONFIG, 30, seed=6)
    with open_checkpoint(checkpoint_of()) as checkpoint:
        on_cpu = Decoder.from_checkpoint(checkpoint).score(tokens)
        on_gpu = Decoder.from_checkpoint(checkpoint, device="cuda").score(tokens)
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, atol=REFERENCE_LOGITS, rtol=0)
