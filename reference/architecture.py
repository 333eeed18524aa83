"""Architecture: what this project knows of one model type, and how its parameters are stored.

The decoder's parameters have canonical names (`model.layers.0.self_attn.q_proj.weight`). An
architecture says what a checkpoint calls them, and which of them it stores in several tensors.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from gptoss_onnx.checkpoint.fields import Fields
from gptoss_onnx.reference.config import DecoderConfig

LAYERS = "model.layers"
_LAYER = re.compile(rf"^{re.escape(LAYERS)}\.(\d+)\.(.+)$")
# Settings of a training, which a config.json may hold: they change nothing that is computed here.
TRAINING_KEYS = (
    "attention_dropout",
    "attn_pdrop",
    "classifier_dropout",
    "dropout",
    "embd_pdrop",
    "hidden_dropout",
    "initializer_range",
    "output_router_logits",
    "resid_pdrop",
    "router_aux_loss_coef",
    "router_jitter_noise",
    "summary_first_dropout",
    "use_cache",
)
# Tensors that no architecture computes with: frequencies that older versions of transformers saved
# along, and what trainers save of themselves.
_NO_WEIGHTS = re.compile(r"(.*\.)?rotary_emb\.inv_freq|(optimizer|lr_scheduler|scaler|ema)\..*")


class StoredNames:
    """The names of a checkpoint's tensors, which say what its config.json leaves out."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = names

    def __contains__(self, name: str) -> bool:
        """Whether a tensor has exactly this name."""
        return name in self._names

    def has(self, ending: str) -> bool:
        """Whether some tensor's name ends so."""
        return any(name.endswith(ending) for name in self._names)

    def begins(self, prefix: str) -> bool:
        """Whether some tensor's name begins so."""
        return any(name.startswith(prefix) for name in self._names)


@dataclass(frozen=True)
class Architecture:
    """One row of the table of architectures.

    Attributes:
        model_type: as config.json says it.
        class_name: the only entry of config.json's `architectures`.
        read: config.json and the names of the stored tensors → configuration; notes problems.
        tiny: config.json of a small model that has every feature, no two sizes alike.
        defaults: what a missing key of config.json means, as transformers has it; not of keys that
            `read` has an answer for.
        presets: config.json of published shapes, by name.
        aliases: shorter names of presets, alias → name.
        modules: canonical module path → stored one, where they differ; paths within a layer are
            relative to it, and the longest path that fits counts.
        prefix: the beginning of stored names that a checkpoint of the bare model leaves out.
        experts: for experts that are stored one by one, parameter → the tensors of one expert whose
            rows, one behind the other, are it; `{}` stands for its number.
        stacked_too: whether a checkpoint may have such a parameter whole as well: its names decide.
        ignored: patterns (`re.fullmatch`) of stored tensors that hold no weight.
        renamed: modules within a layer that the newest transformers calls otherwise than files do,
            as adapters then do, too.
        genai: `model.type` of onnxruntime-genai; `decoder` is its name for any.
        refusals: what a checkpoint of this type may ask for and is refused, with the reason.
    """

    model_type: str
    class_name: str
    read: Callable[[Fields, StoredNames], DecoderConfig]
    tiny: Mapping[str, Any]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    modules: Mapping[str, str] = field(default_factory=dict)
    prefix: str = ""
    experts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    stacked_too: bool = False
    ignored: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    genai: str = "decoder"
    refusals: tuple[str, ...] = ()

    def stored_name(self, canonical: str, names: StoredNames) -> str:
        """Return what a checkpoint calls a parameter; `names` tells whether it uses the prefix."""
        layer = _LAYER.match(canonical)
        if layer is None:
            stored = self._renamed(canonical)
        else:
            trunk = self.modules.get(LAYERS, LAYERS)
            stored = f"{trunk}.{layer[1]}.{self._renamed(layer[2])}"
        bare = bool(self.prefix) and not names.begins(self.prefix)
        return stored.removeprefix(self.prefix) if bare else stored

    def sources(self, canonical: str, count: int, names: StoredNames) -> tuple[str, ...]:
        """Return the stored tensors whose bytes, one behind the other, are a parameter.

        Args:
            canonical: the parameter's name.
            count: how many experts it holds; it matters only if they are stored one by one.
            names: of the stored tensors.
        """
        stored = self.stored_name(canonical, names)
        stem, _, parameter = stored.rpartition(".")
        if parameter not in self.experts:
            return (stored,)
        parts = [f"{stem}.{part}" for part in self.experts[parameter]]
        if self.stacked_too and parts[0].format(0) not in names:
            return (stored,)
        return tuple(part.format(expert) for expert in range(count) for part in parts)

    def is_ignored(self, stored: str) -> bool:
        """Whether a stored tensor holds no weight, such as a causal mask that was saved along."""
        return _NO_WEIGHTS.fullmatch(stored) is not None or any(
            re.fullmatch(pattern, stored) for pattern in self.ignored
        )

    def _renamed(self, path: str) -> str:
        parts = path.split(".")
        for length in range(len(parts), 0, -1):
            head = ".".join(parts[:length])
            if head in self.modules:
                return ".".join([self.modules[head], *parts[length:]])
        return path
