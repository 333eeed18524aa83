"""A session of a package of target ort: what it offers, and that it refuses the rest in one clear
line.

What one for ONNX Runtime 1.32 offers beyond this, `test_ort_rows.py` tests.
"""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from gptoss_onnx.cli import main
from gptoss_onnx.errors import InputError, RuntimeUnavailable
from gptoss_onnx.exporter import Package, export
from gptoss_onnx.offered import not_offered
from gptoss_onnx.runtime import KVCache, Sampling, Session
from gptoss_onnx.validation import validate

GREEDY = Sampling(stop_tokens=())


@pytest.fixture(scope="module")
def session(ort_package: Package) -> Iterator[Session]:
    with Session.open(ort_package.folder, threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def older(ort_int8_package: Package) -> Iterator[Session]:
    """A session of a package for ONNX Runtime 1.28."""
    with Session.open(ort_int8_package.folder, threads=1) as opened:
        yield opened


def filled(session: Session, batch: int = 1, length: int = 40) -> KVCache:
    cache = session.new_cache(batch, 100)
    session.forward(np.arange(batch * length).reshape(batch, length), cache)
    return cache


def test_kernels_are_named(session: Session) -> None:
    assert (session.kernels, session.activations, session.provider) == ("contrib", "exact", "cpu")


@pytest.mark.parametrize(
    "options",
    [
        {"kernels": "native"},
        {"kernels": "portable"},
        {"activations": "bf16"},
        {"activations": "int8"},
        {"provider": "cuda"},
    ],
    ids=str,
)
def test_what_only_the_portable_target_has_is_refused(
    ort_package: Package, options: dict[str, str]
) -> None:
    ((name, value),) = options.items()
    with pytest.raises(
        RuntimeUnavailable, match=f"^{name} {value}: not offered by a package of target ort[^\n]*$"
    ):
        Session.open(ort_package.folder, **options)


REFUSED: dict[str, Callable[[Session], Any]] = {
    "ragged first call": lambda s: s.forward(
        [[1, 2], [3, 0]], s.new_cache(2, 10), new_lengths=[2, 1]
    ),
    "row without a token": lambda s: s.forward([[1], [2]], filled(s, 2), new_lengths=[1, 0]),
    "several tokens after a batch's first": lambda s: s.forward([[1, 2], [3, 4]], filled(s, 2)),
    "prompts of unlike length": lambda s: next(s.generate([[1, 2], [3]])),
    "reserve": lambda s: s.new_cache(1, 10, reserve=1),
    "rewind": lambda s: filled(s).rewind(39),
    "rewind of one row": lambda s: filled(s, 2).rewind([0, 40]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_op_of_1_28_cannot_do_is_refused_before_it_runs(older: Session, case: str) -> None:
    with pytest.raises(
        InputError,
        match=r"^[^\n]*target ort[^\n]*export with --target portable, or with --onnxruntime 1.32,"
        r"[^\n]*$",
    ):
        REFUSED[case](older)


def test_a_refused_call_leaves_the_cache_as_it_was(older: Session) -> None:
    with filled(older, 2) as cache, filled(older, 2) as twin:
        with pytest.raises(InputError):
            older.forward([[1, 2], [3, 4]], cache)
        assert cache.lengths.tolist() == [40, 40]
        np.testing.assert_array_equal(
            older.forward([[1], [2]], cache), older.forward([[1], [2]], twin)
        )


@pytest.mark.parametrize("fixture", ["session", "older"])
def test_reset_fork_and_grow_keep_what_queries_see(
    request: pytest.FixtureRequest, fixture: str
) -> None:
    session: Session = request.getfixturevalue(fixture)
    tokens = list(range(70))
    expected = session.score(tokens)
    with session.new_cache(1, 60) as cache:
        session.forward([list(range(500, 550))], cache)
        cache.reset()
        session.forward([tokens[:50]], cache)
        assert cache.rewind_limit.tolist() == [50 if fixture == "older" else 0]
        with cache.fork() as fork:
            session.forward([[9] * 5], cache)  # the fork must not notice
            fork.grow(70)
            found = [session.forward([[token]], fork)[0, 0] for token in tokens[50:]]
    np.testing.assert_allclose(np.stack(found), expected[50:], atol=1e-4, rtol=0)


def test_window_layers_take_their_window_however_long_the_context(older: Session) -> None:
    with older.new_cache(1, 5) as short, older.new_cache(1, 900) as long:
        windows = [layer for layer in older.manifest.cache if layer.window]
        assert {cache.slots(layer) for cache in (short, long) for layer in windows} == {32}


def test_rows_of_a_batch_end_one_by_one(session: Session) -> None:
    """A row that has met its stop token leaves the others as they are."""
    prompts = [[1, 2, 3], [4, 5, 6]]
    alone = [list(session.generate(prompt, GREEDY, max_new_tokens=12)) for prompt in prompts]
    stop = alone[0][4]
    assert stop not in alone[0][:4] + alone[1]
    generation = session.generate(prompts, Sampling(stop_tokens=(stop,)), max_new_tokens=12)
    list(generation)
    assert generation.tokens == [alone[0][:5], alone[1]]
    assert generation.finish_reasons == ("stop", "length")


def test_logits_of_any_positions(session: Session) -> None:
    tokens = list(range(30))
    expected = session.score(tokens)
    with session.new_cache(2, 30) as cache:
        found = session.forward([tokens, tokens], cache, logit_positions=[[3, 29, 3], [0, 1, 28]])
    np.testing.assert_allclose(found, expected[[[3, 29, 3], [0, 1, 28]]], atol=1e-4, rtol=0)


NEED_ROWS = ("ragged batch", "ragged batches", "ragged chunks", "late rows")  # that differ


def test_validate_reports_what_is_not_offered(
    ort_int8_package: Package, demo_checkpoint: Path
) -> None:
    report = validate(ort_int8_package.folder, demo_checkpoint)
    assert report.passed, report.table()
    missing = {cell.case: cell for cell in report.cells if cell.state == "not available"}
    assert missing.keys() == {*NEED_ROWS, "rewind"}
    assert all("target ort" in cell.note and cell.difference is None for cell in missing.values())
    lines = report.table().splitlines()
    ran = len(report.cells) + len(report.comparisons) - len(missing)
    assert lines[-1].startswith(f"PASS: {ran} checks, {len(missing)} not available; not judged: ")
    assert any(line.startswith("ort: contrib kernels") for line in lines)
    states = [cell["state"] for cell in report.to_json()["cells"]]
    assert states.count("not available") == len(missing)


def test_validate_runs_every_case_where_rows_may_differ(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    package = export(tiny_checkpoint, tmp_path / "package", target="ort", dense="checkpoint")
    report = validate(package.folder, tiny_checkpoint)
    assert report.passed, report.table()
    assert {"ragged batch", "ragged chunks", "rewind"} <= {row.name for row in report.rows}
    assert all(cell.state == "passed" for cell in report.cells)


def test_validate_fails_where_the_manifest_denies_what_is_offered(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    package = export(tiny_checkpoint, tmp_path / "package")
    denied = not_offered("ort", "cpu", "1.28", "int8")
    dataclasses.replace(package.manifest, unsupported=denied).write(package.folder)
    report = validate(package.folder, tiny_checkpoint, kernels="native")
    assert set(report.failed()) == {*NEED_ROWS, "rewind"} and not report.passed


def test_the_command_line_exports_and_generates(tiny_checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "package"
    done = CliRunner().invoke(
        main, ["export", str(tiny_checkpoint), "--output", str(out), "--target", "ort"]
    )
    assert done.exit_code == 0, done.stderr
    assert "1 file hard-linked, no byte copied" in done.stdout
    command = ["generate", str(out), "--prompt-tokens", "1,2,3", "--max-new-tokens", "4", "--json"]
    generated = CliRunner().invoke(main, command)
    assert generated.exit_code == 0, generated.stderr
    assert '"kernels": "contrib"' in generated.stdout
