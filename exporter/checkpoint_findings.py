"""What `inspect` says of a checkpoint: what it is, and what an export would make of its weights.

It knows no layout: whatever a reader's `Source` says becomes visible here.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from gptoss_onnx.checkpoint.fields import Problems
from gptoss_onnx.checkpoint.folder_kinds import GENERATION_CONFIG, names_copied
from gptoss_onnx.checkpoint.locate import locate
from gptoss_onnx.checkpoint.source import Source
from gptoss_onnx.checkpoint.tensors import TensorInfo
from gptoss_onnx.errors import CheckpointError, InputError
from gptoss_onnx.exporter.assembled import assembled_parameters
from gptoss_onnx.exporter.exact_mxfp4 import dense_experts, first_inexact
from gptoss_onnx.exporter.options import ExportOptions
from gptoss_onnx.exporter.separate_experts import separate_parameters
from gptoss_onnx.exporter.weights import layout_of
from gptoss_onnx.progress import Progress
from gptoss_onnx.reference.budget import Budget
from gptoss_onnx.reference.checkpoint import Checkpoint, open_checkpoint
from gptoss_onnx.reference.sources import read_source


@dataclass(frozen=True)
class Written:
    """Weights that an export writes anew: their number and bytes, and what is lost, if anything."""

    weights: int
    bytes: int
    loss: str | None


@dataclass(frozen=True)
class Experts:
    """How the experts are stored.

    Attributes:
        storage: `mxfp4`, or `dense`.
        exact: whether all values are MXFP4's; None where they were not read.
        inexact: the first matrices that are not; None if there are none, or they were not read.
    """

    storage: str
    exact: bool | None
    inexact: str | None


@dataclass(frozen=True)
class Plan:
    """What `export` does by default.

    Attributes:
        linked: weights that stay in the checkpoint's files.
        linked_bytes: of these.
        written: those that do not, by what is lost.
        ort: why target ort refuses the checkpoint; None if it does not.
    """

    linked: int
    linked_bytes: int
    written: tuple[Written, ...]
    ort: str | None


@dataclass(frozen=True)
class CheckpointFindings:
    """A checkpoint as far as its files say; no weight was read, but for `experts.exact`.

    Attributes:
        path: the folder or file.
        layout: in the words of a manifest: `hf-mxfp4`, `openai-mxfp4`; of a refused one `hf`.
        model_type: of config.json; None if it has none.
        model: what was read of config.json.
        files: those of the weights, with their bytes.
        tensors: how many are stored.
        dtypes: bytes of stored tensors by their dtype.
        side_files: tokenizer, chat template and generation settings that are there.
        notes: what a user should know of it, as `export` says it.
        refusal: why `export` refuses the checkpoint; what follows is None or empty then.
        parameters: numbers in the model.
        kinds: bytes by what they are for.
        experts: None where the model has none.
        export: what becomes of the weights.
    """

    path: str
    layout: str
    model_type: str | None
    model: Mapping[str, Any]
    files: Mapping[str, int]
    tensors: int
    dtypes: Mapping[str, int]
    side_files: tuple[str, ...]
    notes: tuple[str, ...] = ()
    refusal: str | None = None
    parameters: int | None = None
    kinds: Mapping[str, int] | None = None
    experts: Experts | None = None
    export: Plan | None = None

    @classmethod
    def of(cls, checkpoint: str | Path, progress: Progress | None = None) -> Self:
        """Look at a checkpoint, one that `export` refuses included.

        Args:
            checkpoint: a folder, a file, or a hub id in the local cache.
            progress: given where the values of dense experts are to be read; hears of the bytes.

        Raises CheckpointError where not even the headers of its files can be read.
        """
        path = locate(checkpoint)
        try:
            with open_checkpoint(path) as opened:
                return cls._of_opened(opened, progress)
        except CheckpointError as error:
            return cls._of_refused(path, error)

    @classmethod
    def _of_opened(cls, checkpoint: Checkpoint, progress: Progress | None) -> Self:
        config = checkpoint.config
        budget = Budget.of(config, 1, 1, "float32", checkpoint.parameters)
        sides = (*names_copied(), GENERATION_CONFIG)
        return cls(
            path=str(checkpoint.folder),
            layout=layout_of(checkpoint),
            model_type=config.model_type,
            model=dict(checkpoint.settings),
            files={name: checkpoint.size_of(path) for path, name in _sorted(checkpoint.file_names)},
            tensors=len(checkpoint.tensors),
            dtypes=_by_dtype(checkpoint.tensors.values()),
            side_files=tuple(name for name in sides if checkpoint.holds(name)),
            notes=checkpoint.notes,
            parameters=budget.parameters,
            kinds={kind: count for kind, count in budget.weight_bytes.items() if count},
            experts=_experts(checkpoint, progress),
            export=_plan(checkpoint),
        )

    @classmethod
    def _of_refused(cls, path: Path, refusal: CheckpointError) -> Self:
        """Return what can be said of a checkpoint that does not open; raises the refusal where
        nothing can.
        """
        try:
            source: Source = read_source(path, Problems())
        except CheckpointError:
            raise refusal from None
        shards, model_type = source.shards, source.document.get("model_type")
        sides = (*names_copied(), GENERATION_CONFIG)
        return cls(
            path=str(path),
            layout=source.layout,
            model_type=model_type if isinstance(model_type, str) else None,
            model={},
            files={name: shards.folder.size(name) for _, name in _sorted(shards.files)},
            tensors=len(shards.tensors),
            dtypes=_by_dtype(shards.tensors.values()),
            side_files=tuple(name for name in sides if source.beside.holds(name)),
            refusal=str(refusal),
        )

    def to_json(self) -> dict[str, Any]:
        """Return all of it, in the words of the attributes."""
        return {"kind": "checkpoint", **asdict(self)}


def _sorted(files: Mapping[Path, str]) -> list[tuple[Path, str]]:
    return sorted(files.items(), key=lambda item: item[1])


def _by_dtype(tensors: Iterable[TensorInfo]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for info in tensors:
        found[info.dtype] += info.nbytes
    return dict(sorted(found.items()))


def _experts(checkpoint: Checkpoint, progress: Progress | None) -> Experts | None:
    if dense_experts(checkpoint):
        inexact = None if progress is None else first_inexact(checkpoint, progress)
        return Experts("dense", None if progress is None else inexact is None, inexact)
    packed = any(name.endswith("_blocks") for name in checkpoint.parameters)
    return Experts("mxfp4", True, None) if packed else None


def _plan(checkpoint: Checkpoint) -> Plan:
    separate = separate_parameters(checkpoint)
    anew = assembled_parameters(checkpoint, "link", separate, frozenset())
    stay = [entry for name, entry in checkpoint.named.items() if name not in anew]
    written: dict[str | None, list[int]] = {}
    for name in sorted(anew):
        parameter = checkpoint.named[name]
        loss = None if parameter.computed is None else parameter.computed.loss
        written.setdefault(loss, []).append(parameter.nbytes)
    return Plan(
        linked=len(stay),
        linked_bytes=sum(entry.nbytes for entry in stay),
        written=tuple(Written(len(sizes), sum(sizes), loss) for loss, sizes in written.items()),
        ort=_refused_by_ort(checkpoint),
    )


def _refused_by_ort(checkpoint: Checkpoint) -> str | None:
    options = ExportOptions.choose("ort", "cpu", None, None, "checkpoint", None, None)
    try:
        options.check_checkpoint(checkpoint)
    except InputError as error:
        return str(error)
    return None
