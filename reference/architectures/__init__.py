"""The table of architectures: a model type of a `config.json` and what this project knows of it.

Adding one is a file in this folder, its line below, and its test.
"""

from collections.abc import Mapping
from typing import Any

from gptoss_onnx.reference.architecture import Architecture
from gptoss_onnx.reference.architectures.bloom import BLOOM
from gptoss_onnx.reference.architectures.glm import GLM
from gptoss_onnx.reference.architectures.gpt2 import GPT2
from gptoss_onnx.reference.architectures.gpt_oss import GPT_OSS
from gptoss_onnx.reference.architectures.gpt_oss_lab import GPT_OSS_LAB
from gptoss_onnx.reference.architectures.llama import LLAMA
from gptoss_onnx.reference.architectures.mistral import MISTRAL
from gptoss_onnx.reference.architectures.mixtral import MIXTRAL
from gptoss_onnx.reference.architectures.openai_gpt import OPENAI_GPT
from gptoss_onnx.reference.architectures.qwen2 import QWEN2
from gptoss_onnx.reference.architectures.qwen3 import QWEN3
from gptoss_onnx.reference.architectures.qwen3_moe import QWEN3_MOE

ARCHITECTURES: dict[str, Architecture] = {
    architecture.model_type: architecture
    for architecture in (
        GPT_OSS,
        GPT_OSS_LAB,
        GPT2,
        OPENAI_GPT,
        BLOOM,
        GLM,
        LLAMA,
        MISTRAL,
        MIXTRAL,
        QWEN2,
        QWEN3,
        QWEN3_MOE,
    )
}
DEFAULT = GPT_OSS.model_type
# Small models, by the names that users type: `tiny` is gpt-oss's, as ever.
TINY = {"tiny": DEFAULT} | {
    f"tiny-{model_type}".replace("_", "-"): model_type for model_type in ARCHITECTURES
}
PRESETS: dict[str, Mapping[str, Any]] = {
    name: document
    for architecture in ARCHITECTURES.values()
    for name, document in architecture.presets.items()
}
ALIASES: dict[str, str] = {
    alias: name
    for architecture in ARCHITECTURES.values()
    for alias, name in architecture.aliases.items()
}
