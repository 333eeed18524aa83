"""What GGUF files call gpt-oss's tensors, and what Hugging Face does.

The names are those of llama.cpp (`src/models/openai-moe.cpp`), and those by which ollama's own
converter differs from it (`convert/convert_gptoss.go`).
"""

import re

TRUNK = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
# Within `blk.N.` and `model.layers.N.`; what is not here is made of several, or several are of it.
LAYER = {
    "attn_norm.weight": "input_layernorm.weight",
    "post_attention_norm.weight": "post_attention_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_q.bias": "self_attn.q_proj.bias",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_k.bias": "self_attn.k_proj.bias",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_v.bias": "self_attn.v_proj.bias",
    "attn_output.weight": "self_attn.o_proj.weight",
    "attn_output.bias": "self_attn.o_proj.bias",
    "attn_sinks.weight": "self_attn.sinks",
    "ffn_gate_inp.weight": "mlp.router.weight",
    "ffn_gate_inp.bias": "mlp.router.bias",
    "ffn_down_exps.bias": "mlp.experts.down_proj_bias",
    "ffn_gate_up_exps.bias": "mlp.experts.gate_up_proj_bias",
}
GATE, UP, DOWN = "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"
GATE_UP = "ffn_gate_up_exps"  # of ollama, rows as in Hugging Face's layout
QKV = "attn_qkv"  # rows of q, then k, then v
OLLAMA = {
    "attn_out.weight": "attn_output.weight",
    "attn_out.bias": "attn_output.bias",
    "attn_sinks": "attn_sinks.weight",
    "ffn_norm.weight": "post_attention_norm.weight",
}
_BLOCK = re.compile(r"blk\.([0-9]{1,4})\.(.+)")
_HF_LAYER = re.compile(r"model\.layers\.([0-9]+)\.(.+)")
_TO_GGUF = {theirs: ours for ours, theirs in (TRUNK | LAYER).items()}
_EXPERTS = {
    "mlp.experts.gate_up_proj": f"{GATE}.weight and {UP}.weight",
    "mlp.experts.gate_up_proj_blocks": f"{GATE}.weight and {UP}.weight",
    "mlp.experts.gate_up_proj_scales": f"{GATE}.weight and {UP}.weight",
    "mlp.experts.gate_up_proj_bias": f"{GATE}.bias and {UP}.bias",
    "mlp.experts.down_proj": f"{DOWN}.weight",
    "mlp.experts.down_proj_blocks": f"{DOWN}.weight",
    "mlp.experts.down_proj_scales": f"{DOWN}.weight",
}


def split_name(name: str) -> tuple[int, str] | None:
    """Return the layer of a tensor and its name within it; None if it is in no layer."""
    found = _BLOCK.fullmatch(name)
    return None if found is None else (int(found[1]), OLLAMA.get(found[2], found[2]))


def gguf_name(name: str) -> str:
    """Return what a GGUF file calls a tensor, of Hugging Face's name for it."""
    found = _HF_LAYER.fullmatch(name)
    if found is None:
        return _TO_GGUF.get(name, name)
    return f"blk.{found[1]}.{_EXPERTS.get(found[2]) or _TO_GGUF.get(found[2], found[2])}"
