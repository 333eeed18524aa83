"""What one adapter changes: its tensors, each held to the shape that the base model asks for."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from gptoss_onnx.checkpoint.adapter import AdapterFiles
from gptoss_onnx.checkpoint.fields import Problems
from gptoss_onnx.checkpoint.tensors import TensorInfo
from gptoss_onnx.reference.adapters.low_rank import BiasSum, LowRank
from gptoss_onnx.reference.adapters.settings import AdapterSettings
from gptoss_onnx.reference.adapters.targets import Target, Targets, by_module

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Changes:
    """By the decoder's names: tensors in the place of parameters, and what is added to them."""

    replaced: dict[str, TensorInfo] = field(default_factory=dict)
    added: dict[str, list[LowRank | BiasSum]] = field(default_factory=dict)

    @property
    def names(self) -> frozenset[str]:
        """Every parameter that changes."""
        return frozenset(self.replaced) | frozenset(self.added)


def changes_of(
    adapter: AdapterFiles, targets: Targets, shapes: Mapping[str, Shape], problems: Problems
) -> Changes:
    """Return what an adapter changes; every tensor of it that does not fit is noted.

    Args:
        adapter: its files.
        targets: of the base model.
        shapes: of the base model's parameters, by the decoder's names.
        problems: gets one line for each tensor that is missing, of another shape, or of no use.

    Raises:
        CheckpointError: the settings are not those of an adapter that is computed here.
    """
    settings = AdapterSettings.read(adapter.settings, adapter.settings_path)
    reader = _Reader(adapter.shards.tensors, settings, shapes, problems)
    pairs = by_module(adapter.shards.tensors)
    for module, names in pairs.items():
        target = targets.target(module, settings)
        if target is None:
            for name in names.values():
                problems.add(f"{name}: found in the adapter, expected a projection of the base")
        else:
            reader.read_pair(module, names, target)
    in_pairs = {name for names in pairs.values() for name in names.values()}
    for name, info in adapter.shards.tensors.items():
        if name not in in_pairs:
            reader.read_whole(info, targets.parameter(name))
    if not adapter.shards.tensors:
        problems.add("found no tensor, expected some")
    return reader.changes


class _Reader:
    """Reads the tensors of one adapter, and notes what is wrong with them."""

    def __init__(
        self,
        tensors: Mapping[str, TensorInfo],
        settings: AdapterSettings,
        shapes: Mapping[str, Shape],
        problems: Problems,
    ) -> None:
        self.changes = Changes()
        self._tensors, self._settings = tensors, settings
        self._shapes, self._problems = shapes, problems

    def read_whole(self, info: TensorInfo, parameter: str | None) -> None:
        """Take a tensor in the place of a parameter."""
        if parameter is None:
            self._problems.add(
                f"{info.name}: found in the adapter, expected a parameter of the base"
            )
        elif self._fits(info, self._shapes[parameter], ""):
            self.changes.replaced[parameter] = info

    def read_pair(self, module: str, names: Mapping[str, str], target: Target) -> None:
        """Take the two matrices of a module, and what goes with them."""
        rank, scale = self._settings.rank_of(target.key), self._settings.scale_of(target.key)
        width = rank * target.experts
        expected: dict[str, Shape] = {"A": (width, target.inputs), "B": (target.outputs, width)}
        why = f" (rank {rank} as adapter_config.json says, sizes of the base model)"
        dora = self._settings.dora and not target.stacked
        if dora:
            expected["magnitude"] = (target.outputs,)
        found = {kind: self._tensors[name] for kind, name in names.items()}
        for kind, shape in expected.items():
            if kind not in found:
                self._problems.add(f"{module}: lora_{kind} is missing, expected {shape}{why}")
        fitting = [
            self._fits(found[kind], shape, why) for kind, shape in expected.items() if kind in found
        ]
        if dora and target.transposed:
            self._problems.add(
                f"{module}: found DoRA on a weight that lies as (in, out), expected "
                "one as (out, in): merge it with PEFT (merge_and_unload)"
            )
        elif "magnitude" in found and not dora:
            self._problems.add(
                f"{names['magnitude']}: found, expected none, as use_dora is not true or the "
                "module has several experts"
            )
        elif all(fitting) and len(fitting) == len(expected):
            self._add(target, scale, found)
        if "bias" in found:
            self._read_bias(found["bias"], target, scale)

    def _add(self, target: Target, scale: float, found: Mapping[str, TensorInfo]) -> None:
        term = LowRank(
            a=found["A"],
            b=found["B"],
            scale=scale,
            transposed=target.transposed,
            experts=target.experts,
            expert=target.expert,
            first=target.first,
            rows=target.rows,
            magnitude=found.get("magnitude"),
        )
        self.changes.added.setdefault(target.parameter, []).append(term)

    def _read_bias(self, info: TensorInfo, target: Target, scale: float) -> None:
        parameter = target.parameter.removesuffix(".weight") + ".bias"
        if parameter not in self._shapes or target.expert is not None or target.stacked:
            self._problems.add(
                f"{info.name}: found a bias, expected none, as the base has none there that it "
                "could be added to"
            )
        elif self._fits(info, self._shapes[parameter], ""):
            self.changes.added.setdefault(parameter, []).append(BiasSum(info, scale))

    def _fits(self, info: TensorInfo, expected: Shape, why: str) -> bool:
        if info.shape != expected:
            self._problems.add(f"{info.name}: found shape {info.shape}, expected {expected}{why}")
        return info.shape == expected
