"""Cases for other exporters' graphs alone, beside those of all packages.

Legend: V vocabulary.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from gptoss_onnx.offered import RAGGED
from gptoss_onnx.validation.cases.driving import Drive, Pair
from gptoss_onnx.validation.cases.table import Case, check_graphs
from gptoss_onnx.validation.foreign.export import ForeignExport
from gptoss_onnx.validation.judging.outcome import judge
from gptoss_onnx.validation.judging.scored import Scored


def foreign_cases(export: ForeignExport, common: Iterable[Case]) -> Iterator[Case]:
    """Yield the `common` cases with the files of the export in place of a package's, and the batch
    that people give to such graphs: padded once, no row ever rests.
    """
    paths = [graph.path for graph in export.graphs]
    for case in common:
        if case.name == "load":
            yield replace(case, run=lambda _: check_graphs(paths))
        else:
            yield case
    yield Case(
        "padded batch",
        "three rows of different lengths that decode together",
        lambda setting: judge(*padded(setting.drive), setting.limits),
        RAGGED,
    )


def padded(drive: Drive) -> Pair:
    """Three rows of different lengths in one call, then a token a row and call."""
    steps = drive.sizes.steps
    lengths = [drive.sizes.length - steps, max(1, drive.sizes.window // 2), 1]
    rows = [drive.expected.tokens(length + steps) for length in lengths]
    first = np.zeros((3, max(lengths)), np.int64)
    for row, tokens, length in zip(first, rows, lengths, strict=True):
        row[:length] = tokens[:length]
    found = []
    with drive.session.new_cache(3, max(lengths) + steps) as cache:
        found.append(drive.session.forward(first, cache, lengths))
        for step in range(steps):
            ids = [[tokens[length + step]] for tokens, length in zip(rows, lengths, strict=True)]
            found.append(drive.session.forward(ids, cache))
    expected = [
        drive.expected.score(tokens)[length - 1 :]
        for tokens, length in zip(rows, lengths, strict=True)
    ]
    return np.concatenate(np.concatenate(found, axis=1)), Scored.join(expected)
