"""The first GPT: like GPT-2, but layer norms stand behind the residual sums, and none at the end.

The judge is `transformers/models/openai`.
"""

from gptoss_onnx.checkpoint.fields import Fields
from gptoss_onnx.reference.architecture import Architecture, StoredNames
from gptoss_onnx.reference.architectures.gpt2 import GPT2
from gptoss_onnx.reference.config import Activation, DecoderConfig
from gptoss_onnx.reference.gpt_parts import gpt_decoder

CLASS = "OpenAIGPTLMHeadModel"
# transformers calls the approximation with tanh plainly gelu here.
_ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}


def read(fields: Fields, names: StoredNames) -> DecoderConfig:
    """Return the configuration."""
    if fields.has("architectures") and fields.value("architectures") != [CLASS]:
        fields.wrong("architectures", f"['{CLASS}']")
    name = fields.one_of("afn", tuple(_ACTIVATIONS)) if fields.has("afn") else "gelu"
    activation = _ACTIVATIONS.get(name, "gelu")
    return gpt_decoder(fields, "openai-gpt", activation, post_norm=True)


OPENAI_GPT = Architecture(
    model_type="openai-gpt",
    class_name=CLASS,
    read=read,
    defaults={"n_layer": 12, "n_head": 12, "n_embd": 768, "n_positions": 512, "vocab_size": 40478},
    tiny={
        "model_type": "openai-gpt",
        "architectures": [CLASS],
        "afn": "gelu",
        "layer_norm_epsilon": 1e-5,
        "n_layer": 3,
        "n_head": 4,
        "n_embd": 64,
        "n_positions": 128,
        "vocab_size": 320,
    },
    presets={
        "openai-gpt": {
            "model_type": "openai-gpt",
            "architectures": [CLASS],
            "afn": "gelu",
            "layer_norm_epsilon": 1e-5,
            "n_layer": 12,
            "n_head": 12,
            "n_embd": 768,
            "n_positions": 512,
            "vocab_size": 40478,
        }
    },
    modules=dict(GPT2.modules)
    | {
        "model.embed_tokens": "transformer.tokens_embed",
        "model.embed_positions": "transformer.positions_embed",
    },
    prefix="transformer.",
    ignored=GPT2.ignored,
)
