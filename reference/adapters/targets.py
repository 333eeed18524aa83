"""What the names of an adapter's tensors mean: which parameter of the model, and which part of it.

An adapter names modules as transformers did when it was trained: as the checkpoint does, or as the
newest version does. `base_layer` marks what PEFT has wrapped.

Legend: E experts, I inputs, O outputs, r rank.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from torch import nn

from gptoss_onnx.checkpoint.names import plain_name
from gptoss_onnx.reference.adapters.settings import AdapterSettings
from gptoss_onnx.reference.architecture import Architecture, StoredNames
from gptoss_onnx.reference.layers import ExpertWeights, Linear

EMBEDDING, LM_HEAD = "model.embed_tokens.weight", "lm_head.weight"
# The parameters of transformers' experts, as they are registered: PEFT wraps the first one first.
_OF_EXPERTS = ("gate_up_proj", "gate_up_proj_bias", "down_proj", "down_proj_bias")
_WRAPPED = ".base_layer"
_ONE_EXPERT = re.compile(r"(.+)\.(gate_up_proj|down_proj)s\.(\d{1,6})")  # Unsloth's linears
_NUMBERED = re.compile(r"(.+)\.(\d{1,6})\.(\w+)")


@dataclass(frozen=True)
class Target:
    """What a product is added to.

    Attributes:
        parameter: the decoder's name of it.
        key: what rank and alpha patterns are compared with.
        matrices: how many matrices it has.
        inputs, outputs: I and O of the projection.
        transposed: its matrix lies as (I, O).
        stacked: the product is of all matrices together.
        expert: the only matrix that is meant, if it is not stacked and there are several.
        first: the first row of the projection in the matrix.
    """

    parameter: str
    key: str
    matrices: int
    inputs: int
    outputs: int
    transposed: bool
    stacked: bool = False
    expert: int | None = None
    first: int = 0

    @property
    def experts(self) -> int:
        """How many experts the two tensors hold."""
        return self.matrices if self.stacked else 1

    @property
    def rows(self) -> int:
        """How many rows of a matrix it is added to."""
        return self.inputs if self.transposed else self.outputs


class Targets:
    """The names of a model's parameters, in every spelling that an adapter may have."""

    def __init__(
        self, architecture: Architecture, names: StoredNames, decoder: nn.Module, tied: bool
    ) -> None:
        self._architecture = architecture
        self._modules = dict(decoder.named_modules())
        self._shapes = {name: tuple(t.shape) for name, t in decoder.state_dict().items()}
        self._canonical: dict[str, str] = {}
        for name in self._shapes:
            for spelt in _spellings(architecture, name, names):
                self._canonical[spelt] = name
        if tied:
            self._canonical[LM_HEAD] = EMBEDDING

    def parameter(self, name: str) -> str | None:
        """Return the decoder's name of the parameter that a whole tensor is; None for none."""
        return self._canonical.get(without_wrapping(name))

    def target(self, module: str, settings: AdapterSettings) -> Target | None:
        """Return what a pair of tensors of this module's name is added to; None for nothing."""
        plain = module
        while plain.endswith(_WRAPPED):
            plain = plain.removesuffix(_WRAPPED)
        depth = (len(module) - len(plain)) // len(_WRAPPED)
        if (name := self._canonical.get(f"{plain}.weight")) is not None:
            return None if depth else self._projection(plain, name, settings)
        if f"{plain}.{_OF_EXPERTS[0]}" in self._canonical:
            return self._stacked(plain, depth, settings)
        return None if depth else self._one_expert(plain)

    def _projection(self, module: str, name: str, settings: AdapterSettings) -> Target | None:
        found = self._modules[name.rpartition(".")[0]]
        key = f"{module}.weight" if settings.targets(f"{module}.weight") else module
        if isinstance(found, Linear):
            rows, columns = found.weight.shape
            sizes = (rows, columns) if found.transposed else (columns, rows)
            return Target(name, key, 1, *sizes, found.transposed)
        if isinstance(found, nn.Embedding):
            count, size = found.weight.shape
            if module == LM_HEAD.removesuffix(".weight"):
                return Target(name, key, 1, size, count, transposed=False)
            return Target(name, key, 1, count, size, transposed=True)
        return None

    def _stacked(self, module: str, depth: int, settings: AdapterSettings) -> Target | None:
        """Return the parameter of experts that is wrapped so deep: the first one deepest."""
        targeted = [name for name in _OF_EXPERTS if settings.targets(f"{module}.{name}")]
        if depth >= len(targeted):
            return None
        key = f"{module}.{targeted[-1 - depth]}"
        name = self._canonical.get(key)
        if name is None or len(self._shapes[name]) != 3:  # a bias of experts
            return None
        count, inputs, outputs, transposed = self._sizes(name)
        return Target(name, key, count, inputs, outputs, transposed, stacked=True)

    def _one_expert(self, module: str) -> Target | None:
        """Return the projection of one expert that is stored, or was trained, by itself."""
        if found := _ONE_EXPERT.fullmatch(module):
            stem, part, number = found.groups()
            parts: Iterable[tuple[str, tuple[str, ...]]] = ((part, (part,)),)
        elif found := _NUMBERED.fullmatch(module):
            stem, number, part = found.groups()
            parts = self._architecture.experts.items()
        else:
            return None
        for parameter, pieces in parts:
            own = [piece.removeprefix("{}.").removesuffix(".weight") for piece in pieces]
            name = self._canonical.get(f"{stem}.{parameter}")
            if part not in own or name is None:
                continue
            count, inputs, outputs, transposed = self._sizes(name)
            each = outputs // len(own)
            if int(number) >= count or (transposed and len(own) > 1):
                return None
            first = own.index(part) * each
            sizes = (count, inputs, each, transposed)
            return Target(name, module, *sizes, expert=int(number), first=first)
        return None

    def _sizes(self, name: str) -> tuple[int, int, int, bool]:
        """Return experts, inputs, outputs of a parameter of experts, and whether it lies (I, O)."""
        count, rows, columns = self._shapes[name]
        experts = self._modules[name.rpartition(".")[0]]
        assert isinstance(experts, ExpertWeights)
        if experts.as_rows:
            return count, columns, rows, False
        return count, rows, columns, True


def _spellings(architecture: Architecture, name: str, names: StoredNames) -> Iterator[str]:
    """Yield what a parameter may be called: as it is stored, with the prefix that bare models leave
    out, and as the newest transformers calls it.
    """
    stored = architecture.stored_name(name, names)
    yield stored
    if architecture.prefix and not names.begins(architecture.prefix) and name != LM_HEAD:
        yield f"{architecture.prefix}{stored}"
    for old, new in architecture.renamed.items():
        yield stored.replace(f".{old}.", f".{new}.")


def without_wrapping(name: str) -> str:
    """Return the name that a tensor would have in a model that PEFT has not wrapped."""
    return plain_name(name).replace(_WRAPPED, "")


def by_module(tensors: Iterable[str]) -> Mapping[str, dict[str, str]]:
    """Return, by the name of its module, what of a pair an adapter holds: A, B, bias, magnitude.

    Each is a name in the file. What is no part of a pair is left out, and so is what another
    tensor is already.
    """
    pairs: dict[str, dict[str, str]] = {}
    for name in tensors:
        for ending, kind in _ENDINGS.items():
            if name.endswith(ending):
                pairs.setdefault(plain_name(name.removesuffix(ending)), {}).setdefault(kind, name)
                break
    return pairs


_ENDINGS = {
    ".lora_A.weight": "A",
    ".lora_B.weight": "B",
    ".lora_B.bias": "bias",
    ".lora_embedding_A": "A",
    ".lora_embedding_B": "B",
    ".lora_magnitude_vector": "magnitude",
    ".lora_magnitude_vector.weight": "magnitude",
}
