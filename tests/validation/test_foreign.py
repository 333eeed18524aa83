"""`validate` on graphs as other exporters write them: right ones pass, what is wrong fails where it
shows, and what a graph cannot do is said.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from gptoss_onnx.reference import DecoderConfig, open_checkpoint
from gptoss_onnx.validation import Report, validate
from gptoss_onnx.validation.foreign.recognize import recognize
from gptoss_onnx.validation.foreign.session import ForeignSession
from support.command_line import run
from support.foreign_graph import Flavour, write_checkpoint, write_graph
from support.tolerances import PACKAGE_LOGITS


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("foreign") / "checkpoint")


@pytest.fixture(scope="module")
def config(checkpoint: Path) -> DecoderConfig:
    with open_checkpoint(checkpoint) as opened:
        return opened.config


def judged(
    checkpoint: Path, config: DecoderConfig, folder: Path, flavour: Flavour | None = None
) -> Report:
    write_graph(checkpoint, config, folder / "model.onnx", flavour)
    return validate(folder, checkpoint)


def states(report: Report) -> Mapping[str, str]:
    return {cell.case: cell.state for cell in report.cells}


RIGHT = {
    "mask and positions": Flavour(),
    "mask alone": Flavour(positions=False),
    "float16 cache": Flavour(dtype=TensorProto.FLOAT16),
    "tokens counted from the mask": Flavour(gqa=True),
    "caches as long as the window": Flavour(gqa=True, windowed=True),
}


@pytest.mark.parametrize("flavour", RIGHT.values(), ids=RIGHT)
def test_right_graphs_pass(
    checkpoint: Path, config: DecoderConfig, tmp_path: Path, flavour: Flavour
) -> None:
    report = judged(checkpoint, config, tmp_path, flavour)
    assert report.passed, report.table()
    found = states(report)
    lacking = {case for case, state in found.items() if state == "not available"}
    assert {"prefill", "decode", "chunks of 7", "even batch", "greedy"}.isdisjoint(lacking)
    assert ("ragged batch" in lacking) == (flavour.windowed or not flavour.positions)
    assert ("padded batch" in lacking) == flavour.windowed
    assert ("rewind" in lacking) == flavour.windowed
    assert "ragged chunks" in lacking


WRONG = {
    "a mask that hides nothing": (Flavour(heeds_mask=False), {"ragged batch", "padded batch"}),
    "a window one token too wide": (Flavour(window=1), {"prefill", "decode", "greedy"}),
}


@pytest.mark.parametrize(("flavour", "cases"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_fails_where_it_shows(
    checkpoint: Path, config: DecoderConfig, tmp_path: Path, flavour: Flavour, cases: set[str]
) -> None:
    report = judged(checkpoint, config, tmp_path, flavour)
    assert report.exit_code == 1
    assert cases <= set(report.failed()), report.table()
    if "padded batch" in cases:
        assert not {"prefill", "decode", "even batch"} & set(report.failed()), report.table()


LACKING = {
    "one row": (Flavour(batch=1), {"even batch": "1 rows alone", "ragged batch": "1 rows alone"}),
    "no mask": (Flavour(mask=False), {"ragged batch": "no attention_mask"}),
    "the last logits": (Flavour(last=True), {"prefill": "of the last position alone"}),
}


@pytest.mark.parametrize(("flavour", "reasons"), LACKING.values(), ids=LACKING)
def test_what_a_graph_cannot_do_is_said(
    checkpoint: Path,
    config: DecoderConfig,
    tmp_path: Path,
    flavour: Flavour,
    reasons: Mapping[str, str],
) -> None:
    report = judged(checkpoint, config, tmp_path, flavour)
    assert report.passed, report.table()
    for case, reason in reasons.items():
        cell = report.cell(case)
        assert cell.state == "not available"
        assert reason in cell.note
    assert report.cell("decode").state == "passed"


def test_two_graphs_take_turns(checkpoint: Path, config: DecoderConfig, tmp_path: Path) -> None:
    write_graph(checkpoint, config, tmp_path / "decoder_model.onnx", Flavour(past=False))
    write_graph(checkpoint, config, tmp_path / "decoder_with_past_model.onnx")
    report = validate(tmp_path, checkpoint)
    assert report.passed, report.table()


def test_the_command_line_writes_nothing_into_the_folder(
    checkpoint: Path, config: DecoderConfig, tmp_path: Path
) -> None:
    write_graph(checkpoint, config, tmp_path / "export" / "model.onnx")
    words = ("validate", tmp_path / "export", "--reference", checkpoint)
    result = run(*words, "--report", tmp_path / "report")
    assert result.exit_code == 0, result.stderr
    assert "PASS" in result.stdout
    assert [path.name for path in (tmp_path / "export").iterdir()] == ["model.onnx"]
    assert "parity.json" in {path.name for path in (tmp_path / "report").iterdir()}


def test_rows_that_go_back_and_apart(
    checkpoint: Path, config: DecoderConfig, tmp_path: Path
) -> None:
    """Rows of unlike length, some of which rest or go back, give what each gives alone."""
    write_graph(checkpoint, config, tmp_path / "model.onnx")
    rows = np.random.default_rng(3).integers(config.vocab_size, size=(3, 20))
    with ForeignSession.open(recognize(tmp_path), config) as session:
        alone = [session.score(row) for row in rows]
        with session.new_cache(3, 20) as cache:
            session.forward(rows[:, :9], cache, new_lengths=[9, 4, 1])
            found = session.forward(rows[[0, 1, 2], [9, 4, 1]][:, None], cache, [1, 0, 1])
            assert np.abs(found[0, 0] - alone[0][9]).max() < PACKAGE_LOGITS
            assert np.abs(found[2, 0] - alone[2][1]).max() < PACKAGE_LOGITS
            assert not found[1].any()
            cache.rewind([7, 4, 2])
            assert cache.lengths.tolist() == [7, 4, 2]
            found = session.forward(rows[[0, 1, 2], [7, 4, 2]][:, None], cache)
        for row, place in enumerate((7, 4, 2)):
            assert np.abs(found[row, 0] - alone[row][place]).max() < PACKAGE_LOGITS
