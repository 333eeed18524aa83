"""`genai_config.json`: what onnxruntime-genai needs to know of a package of target ort.

Keys and their spelling: https://onnxruntime.ai/docs/genai/reference/config.html. onnxruntime-genai
refuses keys that it does not know, so there are none of ours.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gptoss_onnx.choices import Provider
from gptoss_onnx.package import GENAI_CONFIG
from gptoss_onnx.reference.architectures import ARCHITECTURES
from gptoss_onnx.reference.config import DecoderConfig

LONGEST = 4096  # tokens: it allocates the cache for max_length at once, and callers can raise it

# TF32 would round what float32 projections multiply to 11 bits.
_PROVIDER_OPTIONS: Mapping[Provider, list[dict[str, Any]]] = {
    "cpu": [],
    "cuda": [{"cuda": {"use_tf32": "0"}}],
}


def write_genai_config(
    config: DecoderConfig,
    special_ids: Mapping[str, Any],
    graph: str,
    folder: Path,
    provider: Provider,
) -> None:
    """Write the file into `folder`, unless onnxruntime-genai has no such model.

    Args:
        config: the model's.
        special_ids: `bos_token_id`, `eos_token_id` and `pad_token_id`, as far as they are known.
        graph: file name of the graph.
        folder: the package.
        provider: what the graph runs on.
    """
    genai = ARCHITECTURES[config.model_type].genai
    if genai is None:
        return
    model = {"type": genai, **_model(config, special_ids, graph, provider)}
    document = {"model": model, "search": _search(config)}
    (folder / GENAI_CONFIG).write_text(
        json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8"
    )


def _model(
    config: DecoderConfig, special_ids: Mapping[str, Any], graph: str, provider: Provider
) -> dict[str, Any]:
    attention = config.layers[0].attention
    return {
        **_known_ids(special_ids),
        "context_length": config.longest,
        "vocab_size": config.vocab_size,
        "decoder": {
            "session_options": {
                "log_id": "onnxruntime-genai",
                "provider_options": _PROVIDER_OPTIONS[provider],
            },
            "filename": graph,
            "head_size": attention.head_dim,
            "hidden_size": config.hidden_size,
            "num_attention_heads": attention.heads,
            "num_hidden_layers": config.num_layers,
            "num_key_value_heads": attention.kv_heads,
            "inputs": {
                "input_ids": "input_ids",
                "attention_mask": "attention_mask",
                "past_key_names": "past_key_values.%d.key",
                "past_value_names": "past_key_values.%d.value",
            },
            "outputs": {
                "logits": "logits",
                "present_key_names": "present.%d.key",
                "present_value_names": "present.%d.value",
            },
            **_sliding_window(config),
        },
    }


def _known_ids(special_ids: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the -1 of a pad token that there is not: onnxruntime-genai would pad with it."""
    return {key: value for key, value in special_ids.items() if value != -1}


def _sliding_window(config: DecoderConfig) -> dict[str, Any]:
    """Window layers evict by themselves (`sliding_window_cache` of the graph), so nothing is to be
    slid. onnxruntime-genai gives the layers listed a cache of the window and 16 tokens more.
    """
    layers = [index for index, layer in enumerate(config.layers) if layer.attention.window]
    if not layers:
        return {}
    kept = {
        "window_size": config.window,
        "slide_key_value_cache": False,
        "slide_inputs": False,
        "layers": layers,
    }
    return {"sliding_window": kept}


def _search(config: DecoderConfig) -> dict[str, Any]:
    return {
        "do_sample": False,
        "max_length": min(LONGEST, config.longest),
        "num_beams": 1,
        "past_present_share_buffer": True,
        "temperature": 1.0,
        "top_k": 1,
        "top_p": 1.0,
    }
