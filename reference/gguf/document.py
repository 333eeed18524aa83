"""The metadata of a GGUF file as a config.json of gpt-oss says it.

The keys are those of llama.cpp (`src/llama-arch.cpp`). What they leave out, both programs have as
constants: biases everywhere, the clamped SwiGLU, and YaRN that is not truncated.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from gptoss_onnx.checkpoint.fields import Fields, Problems, shown
from gptoss_onnx.checkpoint.gguf.header import Texts, Value
from gptoss_onnx.errors import CheckpointError
from gptoss_onnx.reference.architectures.gpt_oss import CLASS, GPT_OSS, LIMIT
from gptoss_onnx.reference.layer_types import FULL, MOST_LAYERS, SLIDING
from gptoss_onnx.reference.rope_fields import BETA_FAST, BETA_SLOW

# llama.cpp's name of the architecture, and ollama's own.
NAMES = ("gpt-oss", "gptoss")
_IDS = {
    "bos_token_id": "tokenizer.ggml.bos_token_id",
    "eos_token_id": "tokenizer.ggml.eos_token_id",
    "pad_token_id": "tokenizer.ggml.padding_token_id",
}
_PATTERN = "attention.sliding_window_pattern"
_EOS_IDS = "tokenizer.ggml.eos_token_ids"  # of ollama: all that end a text


def check_architecture(metadata: Mapping[str, Value], where: str) -> str:
    """Return the architecture; raises CheckpointError for any but gpt-oss."""
    found = metadata.get("general.architecture")
    if found not in NAMES:
        raise CheckpointError(
            f"{where}: general.architecture: found {_shown(found)}, expected 'gpt-oss': GGUF files "
            "of other models are not read; export the checkpoint that this one was made from"
        )
    return str(found)


def document_of(
    metadata: Mapping[str, Value], vocabulary: int, mxfp4: bool, problems: Problems
) -> dict[str, Any]:
    """Return a config.json for these metadata; what is missing or wrong is noted in `problems`.

    Args:
        metadata: of the file.
        vocabulary: rows of the embedding.
        mxfp4: whether the experts are MXFP4.
        problems: gets the notes.
    """
    prefix = f"{metadata['general.architecture']}."
    keys = {key.removeprefix(prefix): value for key, value in metadata.items()}
    plain = {key: _plain(value) for key, value in keys.items()}
    plain = {key: value if key == _PATTERN else _one(value) for key, value in plain.items()}
    fields = Fields(plain, problems, prefix)
    layers = fields.integer("block_count", most=MOST_LAYERS)
    width_key = "expert_feed_forward_length"
    width_key = width_key if fields.has(width_key) else "feed_forward_length"
    head_dim = fields.integer("attention.key_length")
    document = {
        "model_type": GPT_OSS.model_type,
        "architectures": [CLASS],
        "num_hidden_layers": layers,
        "num_local_experts": fields.integer("expert_count"),
        "num_experts_per_tok": fields.integer("expert_used_count"),
        "hidden_size": fields.integer("embedding_length"),
        "intermediate_size": fields.integer(width_key),
        "vocab_size": vocabulary,
        "num_attention_heads": fields.integer("attention.head_count"),
        "num_key_value_heads": fields.integer("attention.head_count_kv"),
        "head_dim": head_dim,
        "sliding_window": fields.integer("attention.sliding_window"),
        "max_position_embeddings": fields.integer("context_length"),
        "rms_norm_eps": fields.number("attention.layer_norm_rms_epsilon"),
        "rope_theta": fields.number("rope.freq_base", above=1.0),
        "rope_scaling": _rope_scaling(fields, prefix == "gptoss."),
        "hidden_act": "silu",
        "swiglu_limit": LIMIT,
        "attention_bias": True,
        "tie_word_embeddings": False,
    }
    _expect(fields, "attention.value_length", head_dim)
    _expect(fields, "rope.dimension_count", head_dim)
    _expect(fields, "rope.freq_base_swa", document["rope_theta"])
    _expect(fields, "vocab_size", vocabulary)
    if fields.has(_PATTERN):
        document["layer_types"] = _layer_types(fields, layers)
    if mxfp4:
        document["quantization_config"] = {"quant_method": "mxfp4"}
    return document | _special_ids(metadata)


def _rope_scaling(fields: Fields, implied: bool) -> dict[str, Any]:
    """Return rope_scaling; `implied`: ollama's files leave out that the kind is YaRN."""
    key = "rope.scaling.type"
    if implied and fields.has("rope.scaling.factor") and not fields.has(key):
        kind = "yarn"
    else:
        kind = fields.one_of(key, ("yarn", "none")) if fields.has(key) else "none"
    if kind != "yarn":
        return {"rope_type": "default"}
    # what multiplies the frequencies or the logits otherwise than YaRN says
    for other in ("yarn_ext_factor", "yarn_attn_factor", "attn_factor"):
        _expect(fields, f"rope.scaling.{other}", 1.0)
    return {
        "rope_type": "yarn",
        "factor": fields.number("rope.scaling.factor"),
        "beta_fast": fields.number("rope.scaling.yarn_beta_fast", BETA_FAST),
        "beta_slow": fields.number("rope.scaling.yarn_beta_slow", BETA_SLOW),
        "original_max_position_embeddings": fields.integer("rope.scaling.original_context_length"),
        "truncate": False,
    }


def _layer_types(fields: Fields, layers: int) -> list[str]:
    """Return which layers slide: of a list, those that are true; of n, all but each n-th."""
    pattern = fields.value(_PATTERN)
    if isinstance(pattern, list):
        if len(pattern) != layers:
            fields.problems.add(
                f"{fields.prefix}{_PATTERN}: found {len(pattern)} entries, expected {layers}"
            )
        return [SLIDING if slides else FULL for slides in pattern[:layers]]
    each = fields.integer(_PATTERN)
    return [SLIDING if each and layer % each < each - 1 else FULL for layer in range(layers)]


def _special_ids(metadata: Mapping[str, Value]) -> dict[str, Any]:
    """Return the special ids that the tokenizer's metadata have; the exporter checks them."""
    ids: dict[str, Any] = {
        key: metadata[theirs] for key, theirs in _IDS.items() if theirs in metadata
    }
    several = _plain(metadata.get(_EOS_IDS))
    if isinstance(several, list) and several:
        ids["eos_token_id"] = several
    return ids


def _expect(fields: Fields, key: str, value: object) -> None:
    """Note a value that another key, or gpt-oss itself, has fixed."""
    if fields.has(key) and fields.value(key) != value:
        fields.wrong(key, repr(value))


def _plain(value: Value | None) -> Any:
    """Return a value as JSON has it; of strings only how many there are."""
    if isinstance(value, np.ndarray):
        return value[:MOST_LAYERS].tolist()
    return f"{len(value)} strings" if isinstance(value, Texts) else value


def _one(value: Any) -> Any:
    """Return what a value is for every layer, if it is a list that says the same of each."""
    alike = isinstance(value, list) and len(set(value)) == 1
    return value[0] if alike else value


def _shown(value: Value | None) -> str:
    return "an array" if isinstance(value, Texts | np.ndarray) else shown(value)
