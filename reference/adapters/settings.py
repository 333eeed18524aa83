"""What an adapter_config.json says, and which adapters are refused for it.

The judge is PEFT 0.21. A setting that changes what is computed and is not computed here is refused
by its name, and so is one that nobody knew when this was written.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from gptoss_onnx.checkpoint.fields import Fields, Problems, shown
from gptoss_onnx.json_text import printable
from gptoss_onnx.reference.adapters.patterns import LARGEST, Patterns

_INSTEAD = "merge it into its base model with PEFT (merge_and_unload) and export the result"
# Initialisations that leave the base weights as they are; the others subtract from them.
_PLAIN_STARTS = (True, False, "gaussian", "orthogonal", "eva")
_REFUSED = {
    "alora_invocation_tokens": "aLoRA, which begins to count in the middle of a text",
    "arrow_config": "Arrow, which chooses among adapters for each token",
    "kasa_config": "KaSA, which truncates the base weights",
    "layer_replication": "layers that are there several times",
    "monteclora_config": "MonteCLoRA",
    "trainable_token_indices": "rows of the embedding that were trained apart",
    "use_bdlora": "block-diagonal LoRA",
    "use_qalora": "QALoRA, which groups inputs",
    "velora_config": "VeLoRA",
}
# These say how it was trained or which modules were chosen, which the tensors say as well.
_WITHOUT_EFFECT = (
    "auto_mapping",
    "bias",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    "fan_in_fan_out",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_bias",
    "lora_dropout",
    "lora_ga_config",
    "megatron_config",
    "megatron_core",
    "modules_to_save",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
)
_LONGEST_BASE = 300  # letters of the base model's name that are worth recording
_MOST_TARGETS = 20_000


@dataclass(frozen=True)
class AdapterSettings:
    """The settings of a LoRA adapter that count.

    Attributes:
        rank: r of the modules that no pattern of `ranks` names.
        alpha: likewise.
        ranks: by the ends of modules' names.
        alphas: likewise.
        stabilized: the scale is alpha over the root of r (rsLoRA), else over r.
        dora: the adapter holds magnitudes (DoRA).
        target_parameters: the ends of the names of parameters, of several experts for instance.
        base: what the adapter says of its base model, for people to read; nothing is taken from it.
    """

    rank: int
    alpha: float
    ranks: Patterns
    alphas: Patterns
    stabilized: bool
    dora: bool
    target_parameters: tuple[str, ...]
    base: str | None

    @classmethod
    def read(cls, document: Mapping[str, Any], where: str) -> Self:
        """Return the settings; raises CheckpointError with everything that is wrong at once."""
        problems = Problems()
        fields = Fields(document, problems)
        fields.one_of("peft_type", ("LORA",), f": only LoRA is computed here; {_INSTEAD}")
        problems.check(where)  # other types have other keys
        settings = cls(
            rank=fields.integer("r", most=LARGEST),
            alpha=fields.number("lora_alpha"),
            ranks=Patterns.read(fields, "rank_pattern"),
            alphas=Patterns.read(fields, "alpha_pattern"),
            stabilized=fields.boolean("use_rslora", absent=False),
            dora=fields.boolean("use_dora", absent=False),
            target_parameters=_names(fields, "target_parameters"),
            base=_base(fields),
        )
        _refuse(fields)
        problems.check(where)
        return settings

    def rank_of(self, name: str) -> int:
        """Return r of a module or parameter."""
        found = self.ranks.match(name)
        return self.rank if found is None else int(found)

    def scale_of(self, name: str) -> float:
        """Return what the product of a module or parameter is multiplied by."""
        rank, alpha = self.rank_of(name), self.alphas.match(name)
        divisor = math.sqrt(rank) if self.stabilized else rank
        return (self.alpha if alpha is None else alpha) / divisor

    def targets(self, parameter: str) -> bool:
        """Whether `target_parameters` names a parameter of the model."""
        return any(
            parameter == end or parameter.endswith(f".{end}") for end in self.target_parameters
        )


def _refuse(fields: Fields) -> None:
    """Note what is set and is not computed here."""
    for key, what in _REFUSED.items():
        if fields.value(key) not in (None, False, [], {}):
            fields.problems.add(f"{key}: found {what}: {_INSTEAD}")
    start = fields.value("init_lora_weights")
    if start is not None and start not in _PLAIN_STARTS:
        fields.problems.add(
            f"init_lora_weights: found {shown(start)}, which changes the base weights, expected "
            "one that leaves them as they are: convert the adapter with PEFT "
            "(save_pretrained with path_initial_model_for_weight_conversion)"
        )
    for key in sorted(fields.document.keys() - set(fields.asked) - set(_WITHOUT_EFFECT)):
        if fields.document[key] not in (None, False, [], {}, ""):
            fields.problems.add(
                f"{printable(key)[:80]}: found {shown(fields.document[key])}, a setting that is "
                f"not known here: take it out if it does not change the model, or {_INSTEAD}"
            )


def _names(fields: Fields, key: str) -> tuple[str, ...]:
    found = fields.value(key)
    if found is None:
        return ()
    is_list = isinstance(found, list) and len(found) <= _MOST_TARGETS
    if not is_list or not all(isinstance(name, str) for name in found):
        fields.wrong(key, f"a list of at most {_MOST_TARGETS} names")
        return ()
    return tuple(found)


def _base(fields: Fields) -> str | None:
    found = fields.value("base_model_name_or_path")
    return printable(found)[:_LONGEST_BASE] if isinstance(found, str) and found else None
