"""What `validate` says of failing cells: the layer and op, or why nobody looked."""

import logging
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gptoss_onnx.exporter import Package
from gptoss_onnx.progress import LoggedProgress
from gptoss_onnx.reference import Decoder, open_checkpoint
from gptoss_onnx.validation import validate
from gptoss_onnx.validation.divergence import RecordedSession, diagnosis
from gptoss_onnx.validation.divergence.diagnosis import Diagnosis
from gptoss_onnx.validation.report.document import Cell, Report
from support.broken_package import attribute
from support.stranger_graph import change_graph

MOE = "model.layers.1.mlp.MoEDispatchMXFP4"
FAILED = Cell("chunks of 7", "native", "failed", 0.1)


@pytest.fixture(scope="module")
def broken(tiny_package: Package, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny package with another alpha in layer 1."""
    folder = tmp_path_factory.mktemp("broken") / "package"
    shutil.copytree(tiny_package.folder, folder)
    change_graph(folder, attribute(MOE, alpha=1.5))
    return folder


@pytest.fixture
def session(broken: Path) -> Iterator[RecordedSession]:
    with RecordedSession.open(broken, "native") as opened:
        yield opened


@pytest.fixture
def looking(session: RecordedSession, tiny_checkpoint: Path) -> Iterator[Diagnosis]:
    with open_checkpoint(tiny_checkpoint) as checkpoint:
        yield Diagnosis(
            session,
            Decoder.from_checkpoint(checkpoint),
            LoggedProgress(logging.getLogger(__name__)),
        )


def test_a_failing_cell_names_its_op(looking: Diagnosis, session: RecordedSession) -> None:
    looking.begin()
    session.score([3, 1, 4, 1, 5], chunk=2)
    found = looking.complete(FAILED)
    assert found.divergence is not None
    assert (found.divergence.layer, found.divergence.op) == (1, "MoEDispatchMXFP4")
    assert found.divergence.text.endswith("call 1 of 3")
    assert found.by_layer == ()


def test_the_layers_of_prefill_are_measured(looking: Diagnosis, session: RecordedSession) -> None:
    session.score([3, 1, 4, 1, 5])
    found = looking.complete(replace(FAILED, case="prefill", state="passed"))
    assert found.divergence is None
    over = [entry.layer for entry in found.by_layer if entry.relative > entry.allowed]
    assert min(over) == 1


def test_other_cases_are_looked_into_while_there_is_time(
    looking: Diagnosis, session: RecordedSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnosis, "SECONDS", 0.0)
    session.score([1, 2])
    assert looking.complete(FAILED).divergence is not None
    second = looking.complete(FAILED)
    assert second.divergence is None
    assert "0 s were spent on other cases" in second.note


def test_a_case_whose_ops_are_sound_says_so(tiny_package: Package, tiny_checkpoint: Path) -> None:
    with (
        open_checkpoint(tiny_checkpoint) as checkpoint,
        RecordedSession.open(tiny_package.folder, "native") as session,
    ):
        looking = Diagnosis(
            session,
            Decoder.from_checkpoint(checkpoint),
            LoggedProgress(logging.getLogger(__name__)),
        )
        session.score([1, 2])
        found = looking.complete(replace(FAILED, note="one token differs"))
    assert found.divergence is None
    assert found.note == f"one token differs; {diagnosis.NOT_FOUND}"


@pytest.mark.parametrize(
    ("node", "layer", "op", "text"),
    [
        (MOE, 1, "MoEDispatchMXFP4", "layers.1 MoEDispatchMXFP4, which refused to run"),
        (
            "_inlfunc_SinkAttention_token_21_n8",
            None,
            "SinkAttention",
            "SinkAttention, in whose body Concat refused to run",
        ),
    ],
)
def test_a_refusal_names_its_node(
    looking: Diagnosis, session: RecordedSession, node: str, layer: int | None, op: str, text: str
) -> None:
    session.score([1, 2])
    note = f"failed: status code returned while running Concat node. Name:'{node}' Status Message:"
    found = looking.complete(replace(FAILED, state="refused", note=note)).divergence
    assert found is not None
    assert (found.layer, found.op, found.text) == (layer, op, text)


def test_a_graph_of_other_names_is_not_looked_into(
    broken: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    package = shutil.copytree(broken, tmp_path / "package")
    change_graph(package, lambda model: [node.ClearField("name") for node in model.graph.node])
    with (
        open_checkpoint(tiny_checkpoint) as checkpoint,
        RecordedSession.open(package, "native") as session,
    ):
        looking = Diagnosis(
            session,
            Decoder.from_checkpoint(checkpoint),
            LoggedProgress(logging.getLogger(__name__)),
        )
        session.score([1, 2])
        found = looking.complete(FAILED)
    assert found.divergence is None
    assert "not looked into: layers.0: found no nodes of that name" in found.note


def test_validate_prints_where_a_column_departs(broken: Path, tiny_checkpoint: Path) -> None:
    report = validate(broken, tiny_checkpoint, kernels="native")
    assert "prefill: departs first at layers.1 MoEDispatchMXFP4 (rel" in report.table()
    failed = [cell for cell in report.cells if cell.state == "failed"]
    assert {cell.case for cell in failed if cell.divergence is None} == {"other threads"}
    assert all("sessions of its own" in cell.note for cell in failed if cell.divergence is None)
    assert Report.from_json(report.to_json()) == report
