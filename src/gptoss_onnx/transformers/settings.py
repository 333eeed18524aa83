"""What transformers wants to know of a package: a configuration, and how texts are generated."""

from transformers import AutoConfig, GenerationConfig
from transformers.configuration_utils import PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from gptoss_onnx.errors import PackageError
from gptoss_onnx.json_text import printable
from gptoss_onnx.package import GENERATION_CONFIG, Package, read_own_json

_ARCHITECTURE = "model_type"
# What the manifest must not choose: it would make transformers load or look for something else.
_LEFT_OUT = frozenset({_ARCHITECTURE, "auto_map", "quantization_config", "transformers_version"})


def model_config(package: Package) -> PreTrainedConfig:
    """Return transformers' own configuration of the package's model.

    Where transformers does not know the architecture, it is a plain one that says how large the
    vocabulary is and how long a sequence may be. Raises PackageError where transformers refuses
    what the manifest says.
    """
    said = package.manifest.model
    architecture = said.get(_ARCHITECTURE)
    fields = {key: value for key, value in said.items() if key not in _LEFT_OUT}
    try:
        if isinstance(architecture, str) and architecture in CONFIG_MAPPING:
            config = AutoConfig.for_model(architecture, **fields)
        else:
            config = PreTrainedConfig(**fields)
    except Exception as error:  # each architecture checks its fields in its own way
        raise PackageError(
            f"{package.folder}: transformers refuses the manifest's model: "
            f"{printable(' '.join(str(error).split()))[:300]}"
        ) from error
    config.vocab_size = package.manifest.vocab_size
    config.max_position_embeddings = package.manifest.longest
    config.name_or_path = str(package.folder)
    return config


def generation_config(package: Package) -> GenerationConfig:
    """Return what the package's generation_config.json says; raises PackageError."""
    said = read_own_json(package.folder, GENERATION_CONFIG)
    try:
        config = GenerationConfig.from_dict(said)
    except Exception as error:
        raise PackageError(
            f"{package.folder / GENERATION_CONFIG}: transformers refuses it: "
            f"{printable(' '.join(str(error).split()))[:300]}"
        ) from error
    config.eos_token_id = list(package.eos_tokens) or None
    return config
