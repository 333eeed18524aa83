"""SinkAttention against the attention modules of transformers: Llama, GLM, Bloom and T5.

Each module's own projections give queries, keys and values; its output projection is left out. The
op gets the same tokens in chunks, through its cache.
"""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers.models.bloom import modeling_bloom
from transformers.models.glm import modeling_glm
from transformers.models.llama import modeling_llama
from transformers.models.t5 import modeling_t5

from gptoss_onnx.custom_ops import sink_attention  # noqa: F401 - defines the op
from gptoss_onnx.custom_ops.schemas import SIGNATURES
from support.native_levels import NativeCase, cpu_levels, run_at_level
from support.op_models import op_model, run_ort, session_of
from support.tolerances import ATTENTION_300

TOKENS, HIDDEN, HEADS, HEAD_DIM = 200, 64, 4, 16
CHUNKS = (120, 1, 1, 3, 75)
TOKEN_INPUTS = ("query", "key", "value", "cos", "sin")
INPUTS = [operand.name for operand in SIGNATURES["SinkAttention"].inputs]


@dataclass(frozen=True)
class Judged:
    """Inputs of the op for all tokens, its attributes, and a module's output (1, S, H·D)."""

    inputs: dict[str, Tensor]
    attributes: dict[str, float]
    output: Tensor


def tokens() -> Tensor:
    return torch.randn(1, TOKENS, HIDDEN, generator=torch.Generator().manual_seed(1))


def causal() -> Tensor:
    return torch.full((TOKENS, TOKENS), float("-inf")).triu(1)[None, None]


def llama() -> Judged:
    config = transformers.LlamaConfig(
        hidden_size=HIDDEN, num_attention_heads=HEADS, num_key_value_heads=2, head_dim=HEAD_DIM
    )
    rotary = modeling_llama.LlamaRotaryEmbedding(config)
    return rotated(config, modeling_llama.LlamaAttention(config, layer_idx=0), rotary, 0)


def glm() -> Judged:
    config = transformers.GlmConfig(
        hidden_size=HIDDEN,
        num_attention_heads=HEADS,
        num_key_value_heads=1,
        head_dim=HEAD_DIM,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.5,
        },
        pad_token_id=0,
        eos_token_id=0,
    )
    rotary = modeling_glm.GlmRotaryEmbedding(config)
    return rotated(config, modeling_glm.GlmAttention(config, layer_idx=0), rotary, 1)


def rotated(
    config: transformers.PretrainedConfig, module: nn.Module, rotary: nn.Module, interleaved: int
) -> Judged:
    config._attn_implementation = "eager"
    module.o_proj = nn.Identity()
    x = tokens()
    cos, sin = rotary(x, torch.arange(TOKENS)[None])  # (1, S, R), each angle twice
    inputs = {
        "query": module.q_proj(x),
        "key": module.k_proj(x),
        "value": module.v_proj(x),
        "cos": cos[..., : cos.shape[2] // 2],
        "sin": sin[..., : sin.shape[2] // 2],
    }
    attributes = {"kv_num_heads": config.num_key_value_heads, "interleaved": interleaved}
    output = module(x, position_embeddings=(cos, sin), attention_mask=causal())[0]
    return Judged(inputs, attributes | {"scale": HEAD_DIM**-0.5}, output)


def bloom() -> Judged:
    config = transformers.BloomConfig(hidden_size=HIDDEN, n_head=HEADS)
    module = modeling_bloom.BloomAttention(config, layer_idx=0).eval()
    module.dense = nn.Identity()
    x = tokens()
    everyone = torch.ones(1, TOKENS)
    # (H, 1, S): slope · position, which in a softmax is −slope · distance
    alibi = modeling_bloom.build_alibi_tensor(everyone, HEADS, torch.float32)
    heads = module._reshape(module.query_key_value(x))
    inputs = {
        name: part.transpose(1, 2).flatten(2)
        for name, part in zip(("query", "key", "value"), heads, strict=True)
    }
    inputs["alibi_slopes"] = alibi[:, 0, 1].contiguous()
    output = module(x, torch.zeros_like(x), alibi, causal())[0]
    return Judged(inputs, {"kv_num_heads": HEADS, "scale": HEAD_DIM**-0.5}, output)


def t5() -> Judged:
    config = transformers.T5Config(
        d_model=HIDDEN, d_kv=HEAD_DIM, num_heads=HEADS, is_decoder=True, dropout_rate=0.0
    )
    config._attn_implementation = "eager"
    module = modeling_t5.T5Attention(config, has_relative_attention_bias=True, layer_idx=0).eval()
    module.o = nn.Identity()
    x = tokens()
    buckets = module._relative_position_bucket(
        -torch.arange(config.relative_attention_max_distance + 1),
        bidirectional=False,
        num_buckets=config.relative_attention_num_buckets,
        max_distance=config.relative_attention_max_distance,
    )
    inputs = {
        "query": module.q(x),
        "key": module.k(x),
        "value": module.v(x),
        "distance_bias": module.relative_attention_bias(buckets).T.contiguous(),  # (H, N)
    }
    return Judged(inputs, {"kv_num_heads": HEADS, "scale": 1.0}, module(x, mask=causal())[0])


@pytest.fixture(scope="module", params=[llama, glm, bloom, t5])
def judged(request: pytest.FixtureRequest) -> Judged:
    torch.manual_seed(0)
    with torch.no_grad():
        return request.param()


def run_in_chunks(judged: Judged, run: object) -> Tensor:
    """Return the op's output for all tokens, with the cache carried along."""
    cache = torch.zeros(1, judged.attributes["kv_num_heads"], TOKENS, HEAD_DIM)
    carried, outputs, past = (cache, cache), [], 0
    for new in CHUNKS:
        inputs = {
            name: x[:, past : past + new] if name in TOKEN_INPUTS else x
            for name, x in judged.inputs.items()
        }
        inputs |= dict(zip(("past_key", "past_value"), carried, strict=True))
        inputs |= {"past_lengths": torch.tensor([past]), "new_lengths": torch.tensor([new])}
        attributes = {"num_heads": HEADS, "window": 0} | judged.attributes
        output, *carried = run({name: inputs.get(name) for name in INPUTS}, attributes)
        outputs.append(output)
        past += new
    return torch.cat(outputs, dim=1)


def assert_equal(found: Tensor, judged: Judged) -> None:
    torch.testing.assert_close(found, judged.output, atol=ATTENTION_300, rtol=0)


def test_definition(judged: Judged) -> None:
    def run(inputs: dict[str, Tensor | None], attributes: dict[str, float]) -> list[Tensor]:
        return list(torch.ops.gptoss.sink_attention(*inputs.values(), **attributes))

    assert_equal(run_in_chunks(judged, run), judged)


def test_body(judged: Judged) -> None:
    def run(inputs: dict[str, Tensor | None], attributes: dict[str, float]) -> list[Tensor]:
        return run_ort(session_of(op_model("SinkAttention", inputs, attributes)), inputs)

    assert_equal(run_in_chunks(judged, run), judged)


@pytest.mark.parametrize("level", cpu_levels())
def test_kernel(judged: Judged, level: str, tmp_path: Path) -> None:
    def run(inputs: dict[str, Tensor | None], attributes: dict[str, float]) -> list[Tensor]:
        model = op_model("SinkAttention", inputs, attributes, body=False)
        return run_at_level(level, [NativeCase(model.SerializeToString(), inputs)], tmp_path)[0]

    assert_equal(run_in_chunks(judged, run), judged)
