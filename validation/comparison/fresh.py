"""FreshExport: what an export of the checkpoint with a package's own options would write."""

import time
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import onnx
import onnx_ir as ir

from gptoss_onnx.choices import Options
from gptoss_onnx.errors import InputError
from gptoss_onnx.exporter.options import ExportOptions
from gptoss_onnx.exporter.planned import Planned, plan_export
from gptoss_onnx.manifest import Manifest
from gptoss_onnx.package import Package
from gptoss_onnx.progress import Progress
from gptoss_onnx.reference import Checkpoint
from gptoss_onnx.validation.comparison.labels import Labels
from gptoss_onnx.validation.comparison.model_file import read_model


class NotComparableError(Exception):
    """Nobody knows what the package should be; the message says why.

    Attributes:
        spoilt: the manifest says what no export writes, which is a fault of the package.
    """

    def __init__(self, message: str, spoilt: bool) -> None:
        super().__init__(message)
        self.spoilt = spoilt


@dataclass(frozen=True)
class FreshExport:
    """A package beside a fresh export, of which nothing is written.

    Attributes:
        package: whose manifest and weight files were checked (`runtime.open_package`).
        checkpoint: what it should have been made from.
        options: of the export.
        planned: what it would write.
        found: the package's graph.
        expected: the fresh one.
        begun: when its making began, by `time.perf_counter`.
    """

    package: Package
    checkpoint: Checkpoint
    options: ExportOptions
    planned: Planned
    found: onnx.ModelProto
    expected: onnx.ModelProto
    begun: float

    @classmethod
    def make(cls, package: Package, checkpoint: Checkpoint, progress: Progress) -> Self:
        """Plan the export; takes seconds, and reads no weights.

        Raises:
            NotComparableError: the manifest does not say with which options the package was made,
                or says options with which no package is.
            PackageError: the graph cannot be read.
        """
        begun = time.perf_counter()
        options = recorded_options(package.manifest)
        try:
            options.check_checkpoint(checkpoint)
            planned = plan_export(checkpoint, options, progress, package.manifest.stage)
        except InputError as error:
            raise NotComparableError(str(error), spoilt=True) from error
        found, expected = read_model(package.graph), ir.to_proto(planned.graph)
        return cls(package, checkpoint, options, planned, found, expected, begun)

    @cached_property
    def labels(self) -> Labels:
        """How the nodes of the fresh graph are called."""
        return Labels(self.expected.graph)

    @property
    def notes(self) -> tuple[str, ...]:
        """What explains differences: another exporter wrote the package."""
        wrote = self.package.manifest.exporter
        ours = f"{self.expected.producer_name} {self.expected.producer_version}"
        return () if wrote == ours else (f"written by {wrote}, compared with what {ours} writes",)


def recorded_options(manifest: Manifest) -> ExportOptions:
    """Return the options that a package was exported with.

    Manifests without a record say them all for target portable. Raises NotComparableError for one
    of target ort, and for options that do not go together.
    """
    options = manifest.options
    if options is None and manifest.target == "ort":
        raise NotComparableError(
            f"manifest.json has no record of the options ({manifest.exporter} wrote it): export "
            "again",
            spoilt=False,
        )
    if options is None:
        in_int8 = any(entry.kind == "dense-int8" for entry in manifest.rounded)
        options = Options(
            target="portable",
            provider="cpu",
            weights=manifest.weights.mode,
            dense="int8" if in_int8 else "checkpoint",
            experts="checkpoint",
            kv_dtype=manifest.kv_dtype,  # type: ignore[arg-type]  # manifest_check has looked
            onnxruntime="1.28",
        )
    try:
        return ExportOptions.again(options)
    except InputError as error:
        raise NotComparableError(str(error), spoilt=True) from error
