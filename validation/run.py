"""`validate`: run every parity case on a package, in every way that can run it here, and judge it
against the PyTorch reference.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import get_args

from gptoss_onnx.checkpoint.folder_kinds import TOKENIZER
from gptoss_onnx.choices import Activations, AskedRuntime, CpuLevel, Kernels
from gptoss_onnx.errors import InputError, PackageError
from gptoss_onnx.exporter.golden import write_golden
from gptoss_onnx.package import GOLDEN_FILE, TOKENIZER_FILE, own_file
from gptoss_onnx.progress import LoggedProgress, Progress
from gptoss_onnx.runtime.package_check import open_whole
from gptoss_onnx.validation.cases.sizes import Sizes
from gptoss_onnx.validation.cases.table import Suite
from gptoss_onnx.validation.columns.asked import (
    Asked,
    all_columns,
    asked_columns,
    limited,
    widest_products,
)
from gptoss_onnx.validation.columns.session import Judged
from gptoss_onnx.validation.comparison.both import compare
from gptoss_onnx.validation.foreign.validate import is_foreign, validate_foreign
from gptoss_onnx.validation.judging.expected import Expected
from gptoss_onnx.validation.judging.limits import limits_for
from gptoss_onnx.validation.made_on import machine, versions
from gptoss_onnx.validation.pair import check_pair, open_reference, reference_model
from gptoss_onnx.validation.report.document import Cell, Report, Row
from gptoss_onnx.validation.sliced.package import first_layers

SUITES = get_args(Suite)
SEED = 20250805

logger = logging.getLogger(__name__)


def validate(
    package: str | Path,
    reference: str | Path,
    *,
    suite: Suite = "quick",
    kernels: Kernels = "auto",
    activations: Activations = "exact",
    runtimes: Sequence[AskedRuntime] = ("python",),
    clients: Mapping[str, str] | None = None,
    cpu_levels: Sequence[CpuLevel] = (),
    layers: int | None = None,
    adapters: Sequence[str | Path] = (),
    progress: Progress | None = None,
) -> Report:
    """Compare a package with the PyTorch reference in float32, case by case.

    First its graph and weights are compared with those of a fresh export, without running anything.
    If a package has rounded weights, the reference computes with these, and the package is held to
    it as closely as any other. One more case measures how far they are from the checkpoint's own.

    Args:
        package: the package folder.
        reference: the checkpoint it was exported from: a folder or a hub id.
        suite: `quick`, or `full`, which adds the long context and a longer continuation.
        kernels: which of them to judge; `auto` is all that can run the package here: the native
            ones and the bodies in the graph, or for target `ort` ONNX Runtime's own.
        activations: as for `Session.open`; each has limits of its own.
        runtimes: what runs the package: `python` is a session of this process. A client, `cpp`,
            `node` or `browser`, is held to the golden vectors. `genai`, `onnx.reference` and
            `openvino` have a process of their own. `all` is each that is there.
        clients: by name of a runtime, the command of a client, or the Python that has the runtime.
        cpu_levels: levels at which native kernels run, each in a process of its own.
        layers: run the first of them alone, of package and reference, for models that do not fit.
            All weights and the whole graph are compared nevertheless.
        adapters: folders of the adapters that the package was exported with, in the same order.
        progress: hears of the cases; None writes them to the log.

    Returns:
        The report. What a session refuses that it should do is a failure in it. A runtime that
        is not there is a column that says so; if it was named, nothing passes without it.

    Raises:
        InputError: an argument has no such value.
        ParityError: the package was exported from another model, or with other adapters.
        CheckpointError: the checkpoint cannot be read, or its weights are not finite.
        PackageError: the folder is not a package, or was changed.
        RuntimeUnavailable: nothing that is to be judged can run here.
    """
    if suite not in SUITES:
        raise InputError(f"suite: found {suite!r}, expected one of {', '.join(SUITES)}")
    progress = progress or LoggedProgress(logger)
    if is_foreign(package):
        _check_foreign_options(kernels, activations, runtimes, cpu_levels, layers, adapters)
        return validate_foreign(package, reference, suite, SEED, progress)
    progress.begin("opening the package")
    opened = open_whole(package)
    asked = Asked(kernels, activations, runtimes, clients or {}, cpu_levels)
    if layers is not None and (tuple(runtimes), tuple(cpu_levels)) != (("python",), ()):
        raise InputError(
            "slice: found with other runtimes or CPU levels, which run whole packages: leave it out"
        )
    columns = asked_columns(opened, asked)
    rows: dict[str, Row] = {}
    cells: list[Cell] = []
    with ExitStack() as stack:
        checkpoint = stack.enter_context(open_reference(opened, reference, adapters))
        check_pair(opened, checkpoint, progress)
        run = opened if layers is None else stack.enter_context(first_layers(opened, layers))
        comparisons = compare(opened, checkpoint, progress)
        near = limits_for(opened.manifest, activations).near
        products = widest_products(columns)
        expected = Expected(reference_model(opened, checkpoint, layers), SEED, near, products)
        sizes = Sizes.of(expected.config.windows, expected.config.longest)
        tokens = expected.tokens(sizes.length)
        columns = limited(columns, opened.manifest, expected, tokens)
        judged = Judged(run, checkpoint, expected, suite, activations, progress)
        for entry in columns:
            for row, cell in entry.run(judged):
                rows.setdefault(row.name, row)
                cells.append(cell)
        checkpoint.check_unchanged()
    return Report(
        package=str(package),
        reference=str(reference),
        suite=suite,
        seed=SEED,
        versions=versions(),
        machine=machine(),
        columns=all_columns(columns, opened, asked),
        rows=tuple(rows.values()),
        cells=tuple(cells),
        comparisons=comparisons,
    )


def _check_foreign_options(
    kernels: Kernels,
    activations: Activations,
    runtimes: Sequence[AskedRuntime],
    cpu_levels: Sequence[CpuLevel],
    layers: int | None,
    adapters: Sequence[str | Path],
) -> None:
    """Refuse options that would have no effect: ONNX Runtime's own kernels run other exporters'
    graphs, in this process.
    """
    given = (kernels, activations, tuple(runtimes), tuple(cpu_levels), layers, tuple(adapters))
    if given != ("auto", "exact", ("python",), (), None, ()):
        raise InputError(
            "kernels, activations, runtimes, cpu_levels, slice, adapters: found for an export of "
            "another program, which ONNX Runtime's own kernels run here, whole and exact; leave "
            "them out"
        )


def write_golden_vectors(
    package: str | Path,
    reference: str | Path,
    progress: Progress | None = None,
    adapters: Sequence[str | Path] = (),
) -> Path:
    """Write golden vectors into a package whose checkpoint was too large for `export` to run;
    returns the folder.

    Raises:
        PackageError: the folder is not a package, or has golden vectors already.
        CheckpointError, ParityError: as for `validate`.
    """
    opened = open_whole(package)
    folder = opened.folder
    golden = (folder / GOLDEN_FILE).parent
    if os.path.lexists(golden):
        raise PackageError(f"{golden}: exists; delete it to write the golden vectors anew")
    progress = progress or LoggedProgress(logger)
    with open_reference(opened, reference, adapters) as checkpoint:
        check_pair(opened, checkpoint, progress)
        progress.begin("computing golden vectors with the reference")
        # one that `export --tokenizer` has added is not beside the checkpoint
        own = own_file(folder, TOKENIZER_FILE)
        tokenizer = checkpoint.path_of(TOKENIZER) or (own if own.exists() else None)
        write_golden(reference_model(opened, checkpoint), folder, tokenizer)
        checkpoint.check_unchanged()
    return golden
