"""gpt_oss_lab against a plain definition in PyTorch: nothing outside this project defines it.

The judge is written from the descriptions that such models come with: one sequence at a time, no
cache, whole matrices of scores. H heads, D head dim, T tokens.
"""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from gptoss_onnx.choices import Kernels
from gptoss_onnx.errors import CheckpointError, InputError
from gptoss_onnx.exporter import export
from gptoss_onnx.reference import Decoder, open_checkpoint
from gptoss_onnx.reference.synthetic import config_of, make_checkpoint, tiny_document
from gptoss_onnx.runtime import Session
from support.tolerances import PACKAGE_LOGITS, REFERENCE_LOGITS

# A layer of either kind: how many follow is the concern of the export's own tests.
BASE = tiny_document("gpt_oss_lab", n_layer=2, moe_layers=[1])
CASES: dict[str, dict[str, Any]] = {
    "as is": {},
    "layer norm, GELU, biases, untied": {
        "use_rms_norm": False, "use_swiglu": False, "bias": True, "tied": False,
    },
    "every layer has experts": {"moe_layers": [0, 1]},
    "no experts": {"moe_layers": []},
    "kv heads, sinks, window": {"n_kv_head": 2, "sinks": True, "sliding_window": 9},
    "learned": {"positions": "learned"},
    "sinusoidal": {"positions": "sinusoidal"},
    "alibi": {"positions": "alibi"},
    "none": {"positions": "none"},
    "layer norm, GELU, no experts": {"use_rms_norm": False, "use_swiglu": False, "moe_layers": []},
    "biases": {"bias": True},
    "alibi, window, sinks": {"positions": "alibi", "sliding_window": 9, "sinks": True},
    "kept first tokens": {"sliding_window": 9, "sink_tokens": 3, "sink_bias": 0.7},
}  # fmt: skip
# Those whose graphs hold what no other test of packages has.
PACKAGED = (
    "layer norm, GELU, biases, untied",
    "sinusoidal",
    "kv heads, sinks, window",
    "kept first tokens",
)
# The same for ONNX Runtime's own ops, which do not have the rest.
LOWERED = {
    "as is",
    "layer norm, GELU, no experts",
    "biases",
    "kv heads, sinks, window",
    "learned",
    "sinusoidal",
    "alibi",
    "alibi, window, sinks",
}


class Judge:
    """The model, from the tensors of a checkpoint and its config.json."""

    def __init__(self, document: dict[str, Any], folder: Path) -> None:
        self.c = document
        self.w = {name: t.float() for name, t in load_file(folder / "model.safetensors").items()}
        self.heads = document["n_head"]
        self.kv_heads = document.get("n_kv_head", self.heads)
        self.dim = document["n_embd"] // self.heads

    def linear(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(x, self.w[f"{name}.weight"], self.w.get(f"{name}.bias"))

    def norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        weight = self.w[f"{name}.weight"]
        if self.c["use_rms_norm"]:
            return weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5)
        return F.layer_norm(x, x.shape[-1:], weight, self.w[f"{name}.bias"], 1e-5)

    def __call__(self, tokens: list[int]) -> torch.Tensor:
        x, places = self.w["model.embed_tokens.weight"][tokens], torch.arange(len(tokens))
        kind, width = self.c.get("positions", "rope"), self.c["n_embd"]
        if kind == "learned":
            x = x + self.w["model.embed_positions.weight"][places]
        if kind == "sinusoidal":
            for d in range(width):
                angle = places / 10000 ** (d // 2 * 2 / width)
                x[:, d] += angle.cos() if d % 2 else angle.sin()
        for layer in range(self.c["n_layer"]):
            stem = f"model.layers.{layer}"
            x = x + self.attend(self.norm(x, f"{stem}.input_layernorm"), f"{stem}.self_attn")
            h = self.norm(x, f"{stem}.post_attention_layernorm")
            experts = layer in self.c["moe_layers"]
            x = x + (self.experts if experts else self.dense)(h, f"{stem}.mlp")
        x = self.norm(x, "model.norm")
        head = "model.embed_tokens" if self.c["tied"] else "lm_head"
        return F.linear(x, self.w[f"{head}.weight"])

    def attend(self, x: torch.Tensor, stem: str) -> torch.Tensor:
        count, group = len(x), self.heads // self.kv_heads
        q, k, v = (self.linear(x, f"{stem}.{n}_proj").view(count, -1, self.dim) for n in "qkv")
        k, v = (part.repeat_interleave(group, dim=1) for part in (k, v))
        window, kept = self.c.get("sliding_window", count), self.c.get("sink_tokens", 0)
        found = torch.zeros(count, self.heads, self.dim)
        for t in range(count):  # StreamingLLM: positions are those within the cache
            held = [p for p in range(t + 1) if p < kept or t - p < window - kept]
            places = torch.arange(len(held)) if kept else torch.tensor(held)
            query = self.rotate(q[t : t + 1], places[-1:])
            scores = torch.einsum("qhd,khd->hk", query, self.rotate(k[held], places))
            scores /= math.sqrt(self.dim)
            if self.c.get("positions") == "alibi":
                slopes = torch.tensor([2 ** (-8 * (h + 1) / self.heads) for h in range(self.heads)])
                scores -= slopes[:, None] * (t - torch.tensor(held))
            scores += self.c.get("sink_bias", 0.0) * (torch.tensor(held) < kept)
            if f"{stem}.sinks" in self.w:
                scores = torch.cat((scores, self.w[f"{stem}.sinks"][:, None]), 1)
            shares = scores.softmax(-1)[:, : len(held)]
            found[t] = torch.einsum("hk,khd->hd", shares, v[held])
        return self.linear(found.flatten(1), f"{stem}.o_proj")

    def rotate(self, x: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        if self.c.get("positions", "rope") != "rope":
            return x
        angles = places[:, None] * 10000.0 ** (-torch.arange(0, self.dim, 2) / self.dim)
        cos, sin = angles.cos()[:, None], angles.sin()[:, None]
        a, b = x.chunk(2, dim=-1)
        return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)

    def dense(self, x: torch.Tensor, stem: str) -> torch.Tensor:
        up = self.linear(x, f"{stem}.up_proj")
        gate = F.silu(self.linear(x, f"{stem}.gate_proj")) if self.c["use_swiglu"] else None
        wide = F.gelu(up) if gate is None else gate * up
        return self.linear(wide, f"{stem}.down_proj")

    def experts(self, x: torch.Tensor, stem: str) -> torch.Tensor:
        w = {name: self.w.get(f"{stem}.experts.{name}") for name in (
            "gate_up_proj", "gate_up_proj_bias", "down_proj", "down_proj_bias")}  # fmt: skip
        shares, chosen = self.linear(x, f"{stem}.router").softmax(-1).topk(self.c["top_k"])
        shares = shares / shares.sum(-1, keepdim=True)
        out = torch.zeros_like(x)
        for t in range(len(x)):
            for share, e in zip(shares[t], chosen[t], strict=True):
                bias = [
                    None if w[n] is None else w[n][e]
                    for n in ("gate_up_proj_bias", "down_proj_bias")
                ]
                wide = F.linear(x[t], w["gate_up_proj"][e], bias[0])
                if self.c["use_swiglu"]:
                    gate, up = wide.chunk(2)
                    wide = F.silu(gate) * up
                else:
                    wide = F.gelu(wide)
                out[t] += share * F.linear(wide, w["down_proj"][e], bias[1])
        return out


@pytest.mark.parametrize("name", CASES)
def test_the_reference_and_a_package(name: str, tmp_path: Path) -> None:
    document = BASE | CASES[name]
    make_checkpoint(tmp_path / "c", document, seed=5, dtype="F32")
    tokens = torch.randint(320, (40,), generator=torch.Generator().manual_seed(0)).tolist()
    expected = Judge(document, tmp_path / "c")(tokens)
    assert expected.std() > 0.3
    with open_checkpoint(tmp_path / "c") as checkpoint:
        found = Decoder.from_checkpoint(checkpoint).score(tokens)
    torch.testing.assert_close(found, expected, atol=REFERENCE_LOGITS, rtol=0)
    if name in PACKAGED:
        export(tmp_path / "c", tmp_path / "package")
        check_package(tmp_path / "package", ("native", "portable"), tokens, expected)
    if name in LOWERED:
        export(tmp_path / "c", tmp_path / "ort", target="ort")
        check_package(tmp_path / "ort", ("auto",), tokens, expected)


def check_package(
    folder: Path, choices: tuple[Kernels, ...], tokens: list[int], expected: torch.Tensor
) -> None:
    for kernels in choices:
        with Session.open(folder, kernels=kernels, threads=1) as session:
            for chunk in (40, 7, 1):
                logits = torch.from_numpy(session.score(tokens, chunk=chunk))
                torch.testing.assert_close(logits, expected, atol=PACKAGE_LOGITS, rtol=0)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (CASES["kept first tokens"], "sink_tokens 3, expected 0"),
        ({"use_swiglu": False}, "experts with gelu, expected swiglu, silu, relu, gelu_tanh"),
        ({"n_embd": 48}, "head_dim 12, expected a multiple of 8"),
    ],
    ids=["kept first tokens", "gelu", "head_dim"],
)
def test_what_onnx_runtime_lacks_is_refused_first(
    changes: dict[str, Any], named: str, tmp_path: Path
) -> None:
    make_checkpoint(tmp_path / "c", BASE | changes, seed=5)
    portable = ".*: export with --target portable$"
    with pytest.raises(InputError, match=f"^--target ort: found {named}{portable}"):
        export(tmp_path / "c", tmp_path / "package", target="ort")
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_keys_that_nobody_defines_are_refused() -> None:
    with pytest.raises(CheckpointError, match="n_expert: found 8, expected no such key"):
        config_of(BASE | {"n_expert": 8})
    assert config_of(BASE | {"resid_pdrop": 0.1}) == config_of(BASE)  # a training's


def test_a_window_holds_more_than_the_kept_tokens() -> None:
    with pytest.raises(CheckpointError, match="sink_tokens: found 9, expected fewer than"):
        config_of(BASE | {"sliding_window": 9, "sink_tokens": 9})
