"""StagedSession: a session over the stages of one model, each in a process of its own.

It is for models whose weights are larger than one machine, or what one process may hold: a stage
maps the weights of its own layers alone. One call runs the stages one after the other, so no token
comes sooner than from the whole model.
"""

import dataclasses
import os
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Self

from gptoss_onnx.choices import Activations, Kernels
from gptoss_onnx.errors import InputError
from gptoss_onnx.manifest import Manifest, Stage
from gptoss_onnx.package import Package
from gptoss_onnx.runtime.arguments import folder_path, integer
from gptoss_onnx.runtime.environment import load_onnxruntime
from gptoss_onnx.runtime.kernels import choose_kernels
from gptoss_onnx.runtime.package_check import open_package
from gptoss_onnx.runtime.session import MOST_THREADS, Session
from gptoss_onnx.runtime.stages.graph import StagedGraph
from gptoss_onnx.runtime.stages.process import StageOptions, StageProcess

# What stages of one model have in common.
_COMMON = (
    "target",
    "onnxruntime",
    "model",
    "vocab_size",
    "longest",
    "kv_dtype",
    "unsupported",
    "options",
)


class StagedSession(Session):
    """A session whose layers run in processes on this machine, one for each stage.

    It does what any session does; `close` ends the processes. Where one of them dies, calls raise
    RuntimeUnavailable from then on.

    Attributes:
        processes: of the stages, in the order of their layers.
    """

    processes: tuple[StageProcess, ...]

    @classmethod
    def start(
        cls,
        stages: Sequence[str | os.PathLike[str]],
        kernels: Kernels = "auto",
        activations: Activations = "exact",
        threads: int | None = None,
    ) -> Self:
        """Start a process for each stage, on the CPU, and wait until all are open.

        Args:
            stages: folders that `gptoss-onnx export --layers` wrote, in any order; together they
                have every layer of one model once.
            kernels: as in `Session.open`.
            activations: as in `Session.open`.
            threads: as in `Session.open`, in each process.

        Raises:
            InputError: the stages do not belong together, or an argument has no such value.
            PackageError, RuntimeUnavailable: as `Session.open`, for the first stage that fails.
        """
        threads = None if threads is None else integer("threads", threads, 1, MOST_THREADS)
        packages = _in_order([open_package(folder_path("stages", folder)) for folder in stages])
        manifest = _whole(packages)
        choose_kernels(manifest, kernels, activations, "cpu")  # refuses what no stage can do
        options = StageOptions(kernels, activations, threads)
        whole = Package(packages[0].folder, manifest)
        with ExitStack() as started:
            processes = [
                started.enter_context(StageProcess(package, options)) for package in packages
            ]
            running = [process.ready() for process in processes]
            graph = StagedGraph(load_onnxruntime(), manifest, processes)
            session = cls(graph, whole, running[0], activations, "cpu")
            session.processes = tuple(processes)
            started.pop_all()
        return session


def _in_order(packages: Sequence[Package]) -> list[Package]:
    """Return the packages in the order of their layers; raises InputError unless they are the
    stages of one model.
    """
    found = [(package, _stage(package)) for package in packages]
    found.sort(key=lambda entry: entry[1].first)
    begin, total = 0, found[0][1].layers if found else 0
    for package, stage in found:
        if stage.layers != total or stage.first != begin:
            raise InputError(
                f"{package.folder}: found {stage}, expected layers {begin} and on of {total}: pass "
                "stages that have every layer of one model once"
            )
        begin = stage.end
    if begin != total or not found:
        raise InputError(
            f"stages: found layers 0 to {begin - 1}, expected all {total}: pass the stages of the "
            "others, too"
            if found
            else "stages: found none, expected the folders of all stages of a model"
        )
    ordered = [package for package, _ in found]
    for package in ordered[1:]:
        for key in _COMMON:
            if getattr(package.manifest, key) != getattr(ordered[0].manifest, key):
                raise InputError(
                    f"{package.folder}: found another {key} than in {ordered[0].folder}, expected "
                    "stages of one model, exported with the same options"
                )
    return ordered


def _stage(package: Package) -> Stage:
    stage = package.manifest.stage
    if stage is None:
        raise InputError(
            f"{package.folder}: found a package of all layers, expected a stage, as `gptoss-onnx "
            "export --layers` writes it; open the whole one with Session.open"
        )
    return stage


def _whole(packages: Sequence[Package]) -> Manifest:
    """Return the manifest of the whole model, with the weights of the first stage."""
    manifests = [package.manifest for package in packages]
    uses = Counter[tuple[str, str, int]]()
    for use in (use for manifest in manifests for use in manifest.ops):
        uses[use.domain, use.name, use.version] += use.count
    first = manifests[0]
    kinds = {(use.domain, use.name, use.version): use for m in manifests for use in m.ops}
    return dataclasses.replace(
        first,
        cache=tuple(layer for manifest in manifests for layer in manifest.cache),
        ops=tuple(dataclasses.replace(kinds[key], count=uses[key]) for key in sorted(uses)),
        lossy=tuple(dict.fromkeys(text for manifest in manifests for text in manifest.lossy)),
        stage=None,
    )
