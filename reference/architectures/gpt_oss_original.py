"""The config.json of gpt-oss in OpenAI's own layout, from and to Hugging Face's.

Its keys are the fields of `ModelConfig` in `gpt_oss/torch/model.py`, github.com/openai/gpt-oss.
What it leaves out is the same in every such model: biases everywhere, an lm_head of its own, layers
of even number with a window, frequencies that are not truncated, and MXFP4.
"""

from collections.abc import Mapping
from typing import Any

from gptoss_onnx.checkpoint.fields import Fields, Problems, shown
from gptoss_onnx.checkpoint.openai_layout import Sizes
from gptoss_onnx.reference.architectures.gpt_oss import COMMON, LIMIT, yarn
from gptoss_onnx.reference.layer_types import MOST_LAYERS

Document = Mapping[str, Any]
# Some of these are in Hugging Face's config.json too, which has a model_type.
_OWN = ("experts_per_token", "initial_context_length", "rope_scaling_factor", "rope_ntk_alpha")
# Hugging Face's key for each that means the same.
_SAME = {
    "num_hidden_layers": "num_hidden_layers",
    "num_experts": "num_local_experts",
    "experts_per_token": "num_experts_per_tok",
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "head_dim": "head_dim",
    "num_attention_heads": "num_attention_heads",
    "num_key_value_heads": "num_key_value_heads",
    "sliding_window": "sliding_window",
}
_PLAIN_ALPHA, _PLAIN_BETA = 1.0, 32.0  # written where nothing is scaled


def is_original(document: Document) -> bool:
    """Say whether a config.json has the keys of OpenAI's own layout."""
    return "model_type" not in document and any(key in document for key in _OWN)


def hugging_face_document(document: Document, where: str) -> dict[str, Any]:
    """Return the config.json that says the same in Hugging Face's keys.

    `where` names the document in messages. Raises CheckpointError with everything that is wrong
    with it at once. A key that OpenAI's reader does not know is wrong, as it is there: models of
    another kind have some.
    """
    problems = Problems()
    fields = Fields(document, problems)
    sizes = {
        theirs: fields.integer(ours, most=MOST_LAYERS)
        if ours == "num_hidden_layers"
        else fields.integer(ours)
        for ours, theirs in _SAME.items()
    }
    if sizes["num_experts_per_tok"] > sizes["num_local_experts"]:
        fields.wrong("experts_per_token", f"at most num_experts = {sizes['num_local_experts']}")
    limit = fields.number("swiglu_limit", LIMIT)
    theta = fields.number("rope_theta", above=1.0)
    initial = fields.integer("initial_context_length")
    factor = fields.number("rope_scaling_factor")
    slow, fast = fields.number("rope_ntk_alpha"), fields.number("rope_ntk_beta")
    for key in sorted(document.keys() - set(fields.asked)):
        problems.add(
            f"{key}: unexpected, found {shown(document[key])}: OpenAI's layout has no such key"
        )
    problems.check(where)
    scaling = yarn(initial, factor, fast, slow) if factor > 1 else {"rope_type": "default"}
    return {
        **COMMON,
        **sizes,
        "swiglu_limit": limit,
        "rope_theta": theta,
        "rope_scaling": scaling,
        "max_position_embeddings": int(initial * max(factor, 1.0)),
    }


def original_document(document: Document) -> dict[str, Any]:
    """Return the config.json of OpenAI's layout for one of Hugging Face's, as far as it can say it:
    whoever needs all of it compares what `hugging_face_document` makes of it.
    """
    scaling = document["rope_scaling"]
    return {ours: document.get(theirs) for ours, theirs in _SAME.items()} | {
        "swiglu_limit": document.get("swiglu_limit", LIMIT),
        "rope_theta": document["rope_theta"],
        "initial_context_length": scaling.get(
            "original_max_position_embeddings", document["max_position_embeddings"]
        ),
        "rope_scaling_factor": scaling.get("factor", 1.0),
        "rope_ntk_alpha": scaling.get("beta_slow", _PLAIN_ALPHA),
        "rope_ntk_beta": scaling.get("beta_fast", _PLAIN_BETA),
    }


def sizes_of(document: Document, where: str) -> Sizes:
    """Return what the tensors' shapes depend on, from Hugging Face's config.json.

    Raises CheckpointError where it lacks one, or has another than a size.
    """
    problems = Problems()
    fields = Fields(document, problems)
    heads, head_dim = fields.integer("num_attention_heads"), fields.integer("head_dim")
    sizes = Sizes(
        layers=fields.integer("num_hidden_layers", most=MOST_LAYERS),
        vocabulary=fields.integer("vocab_size"),
        hidden=fields.integer("hidden_size"),
        heads=heads,
        queries=heads * head_dim,
        keys=fields.integer("num_key_value_heads") * head_dim,
        experts=fields.integer("num_local_experts"),
        width=fields.integer("intermediate_size"),
    )
    problems.check(where)
    return sizes
