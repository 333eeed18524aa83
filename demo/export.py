"""Writes a trained model as a Hugging Face MXFP4 checkpoint and proves it against transformers."""

import json
import shutil
from pathlib import Path

import torch
from data import special_ids
from model import TrainingModel
from mxfp4 import pack
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import GptOssConfig, GptOssForCausalLM
from transformers.utils.quantization_config import Mxfp4Config

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- if message.role == "assistant" -%}
<|start|>assistant<|channel|>final<|message|>{{ message.content }}<|end|>
{%- else -%}
<|start|>{{ message.role }}<|message|>{{ message.content }}<|end|>
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
<|start|>assistant<|channel|>final<|message|>
{%- endif -%}
"""


def export(model: TrainingModel, config: GptOssConfig, tokenizer: Tokenizer, folder: Path) -> None:
    """Write the checkpoint beside `folder`, then put it in its place in one rename."""
    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    save_file(_tensors(model), fresh / "model.safetensors", metadata={"format": "pt"})
    (fresh / "model.safetensors").chmod(0o644)  # safetensors writes it for its owner alone
    ids = special_ids(tokenizer)
    _write_json(fresh / "config.json", _config_json(config, ids))
    _write_json(fresh / "generation_config.json", _generation_json(ids))
    _write_json(fresh / "tokenizer_config.json", _tokenizer_json(config, ids))
    tokenizer.save(str(fresh / "tokenizer.json"))
    (fresh / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def load(folder: Path) -> GptOssForCausalLM:
    """The checkpoint in transformers: fp32, eager attention, experts unpacked bit-exactly."""
    model: GptOssForCausalLM = GptOssForCausalLM.from_pretrained(
        folder,
        dtype=torch.float32,
        attn_implementation="eager",
        quantization_config=Mxfp4Config(dequantize=True),
    )
    nn.Module.float(model)  # transformers unpacks experts to bf16, which holds them exactly
    nn.Module.eval(model)
    return model


@torch.no_grad()
def compare(model: TrainingModel, folder: Path, ids: Tensor) -> float:
    """Largest logit difference between the training model, its weights in bf16, and transformers.

    ids (B, S) int64. What is left is fp32 summation order.
    """
    rounded = {
        k: v.bfloat16().float() if "experts" not in k or "bias" in k else v
        for k, v in _state(model)
    }
    kept = {k: v.clone() for k, v in _state(model)}
    model.load_state_dict(rounded)
    ours, _ = model(ids)
    model.load_state_dict(kept)
    return float((ours - load(folder)(ids).logits).abs().max())


def _state(model: TrainingModel) -> list[tuple[str, Tensor]]:
    return list(model.state_dict().items())


def _tensors(model: TrainingModel) -> dict[str, Tensor]:
    """Checkpoint tensors by name: experts packed, everything else bf16."""
    tensors = {}
    for name, value in _state(model):
        if name.endswith(("gate_up_proj", "down_proj")):
            tensors[f"{name}_blocks"], tensors[f"{name}_scales"] = pack(value)
        else:
            tensors[name] = value.bfloat16()
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def _config_json(config: GptOssConfig, ids: dict[str, int]) -> dict[str, object]:
    """The keys of openai/gpt-oss-20b's published config.json, which every transformers version
    reads.
    """
    rope = dict(config.rope_parameters or {})
    return {
        "architectures": ["GptOssForCausalLM"],
        "attention_bias": True,
        "attention_dropout": 0.0,
        "bos_token_id": ids["<|startoftext|>"],
        "eos_token_id": ids["<|return|>"],
        "experts_per_token": config.num_experts_per_tok,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "hidden_size": config.hidden_size,
        "initial_context_length": rope["original_max_position_embeddings"],
        "initializer_range": 0.02,
        "intermediate_size": config.intermediate_size,
        "layer_types": config.layer_types,
        "max_position_embeddings": config.max_position_embeddings,
        "model_type": "gpt_oss",
        "num_attention_heads": config.num_attention_heads,
        "num_experts_per_tok": config.num_experts_per_tok,
        "num_hidden_layers": config.num_hidden_layers,
        "num_key_value_heads": config.num_key_value_heads,
        "num_local_experts": config.num_local_experts,
        "output_router_logits": False,
        "pad_token_id": ids["<|endoftext|>"],
        "quantization_config": {
            "modules_to_not_convert": [
                "model.layers.*.self_attn",
                "model.layers.*.mlp.router",
                "model.embed_tokens",
                "lm_head",
            ],
            "quant_method": "mxfp4",
        },
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": rope.pop("rope_theta"),
        "rope_scaling": rope,
        "router_aux_loss_coef": config.router_aux_loss_coef,
        "sliding_window": config.sliding_window,
        "swiglu_limit": config.swiglu_limit,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": config.vocab_size,
    }


def _generation_json(ids: dict[str, int]) -> dict[str, object]:
    return {
        "bos_token_id": ids["<|startoftext|>"],
        "do_sample": True,
        "eos_token_id": [ids["<|return|>"], ids["<|endoftext|>"]],
        "pad_token_id": ids["<|endoftext|>"],
    }


def _tokenizer_json(config: GptOssConfig, ids: dict[str, int]) -> dict[str, object]:
    flags = {
        "lstrip": False,
        "normalized": False,
        "rstrip": False,
        "single_word": False,
        "special": True,
    }
    return {
        "added_tokens_decoder": {str(i): {"content": token, **flags} for token, i in ids.items()},
        "bos_token": "<|startoftext|>",
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|return|>",
        "extra_special_tokens": {},
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": config.max_position_embeddings,
        "pad_token": "<|endoftext|>",
        "tokenizer_class": "PreTrainedTokenizerFast",
    }


def _write_json(path: Path, value: dict[str, object]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")
