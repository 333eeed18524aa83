"""StagedSession: what processes of some layers each compute is what one session of all computes,
bit for bit.
"""

import itertools
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gptoss_onnx.errors import InputError, RuntimeUnavailable
from gptoss_onnx.exporter import Package, export
from gptoss_onnx.runtime import KVCache, Sampling, Session, StagedSession

CUTS = {2: (0, 3, 6), 3: (0, 1, 5, 6)}
Stages = dict[int, list[Path]]


@pytest.fixture(scope="module")
def stages(demo_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Stages:
    folder = tmp_path_factory.mktemp("stages")
    return {
        count: [
            export(demo_checkpoint, folder / f"{first}-{end}", layers=(first, end)).folder
            for first, end in itertools.pairwise(cuts)
        ]
        for count, cuts in CUTS.items()
    }


@pytest.fixture(scope="module")
def whole(demo_package: Package) -> Iterator[Session]:
    with Session.open(demo_package.folder, threads=1) as session:
        yield session


@pytest.fixture(scope="module", params=CUTS)
def staged(stages: Stages, request: pytest.FixtureRequest) -> Iterator[StagedSession]:
    with StagedSession.start(stages[request.param], threads=1) as session:
        yield session


@contextmanager
def two(stages: Sequence[Path]) -> Iterator[StagedSession]:
    with StagedSession.start(stages, threads=1) as session:
        yield session


def drawn(seed: int, *shape: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, 2048, shape)


def both(
    whole: Session, staged: Session, run: Callable[[Session, KVCache], NDArray[Any]], **sizes: int
) -> list[NDArray[Any]]:
    sizes = {"batch": 2, "capacity": 96, **sizes}
    found = []
    for session in (whole, staged):
        with session.new_cache(**sizes) as cache:
            found.append(run(session, cache))
    return found


def ragged(session: Session, cache: KVCache) -> NDArray[Any]:
    session.forward(drawn(0, 2, 40), cache, [40, 23])
    return session.forward(drawn(1, 2, 9), cache, [0, 9], [[0, 1], [3, 8]])


def chunked(session: Session, cache: KVCache) -> NDArray[Any]:
    return session.forward(drawn(2, 2, 70), cache, [70, 51], [[3, 69], [20, 50]])


def rewound(session: Session, cache: KVCache) -> NDArray[Any]:
    session.forward(drawn(3, 2, 60), cache)
    session.forward(drawn(4, 2, 4), cache)
    cache.rewind([58, 63])
    first = session.forward(drawn(5, 2, 3), cache)
    cache.reset()
    return np.concatenate([first, session.forward(drawn(6, 2, 5), cache)])


def forked(session: Session, cache: KVCache) -> NDArray[Any]:
    session.forward(drawn(7, 2, 50), cache)
    with cache.fork() as twin:
        ours = session.forward(drawn(8, 2, 2), cache)
        return np.concatenate([ours, session.forward(drawn(9, 2, 2), twin)])


def moved(session: Session, cache: KVCache) -> NDArray[Any]:
    """Rows leave a cache and enter others, before and after their windows have wrapped."""
    session.forward(drawn(17, 2, 70), cache, [70, 20])
    states = [cache.save_row(0), cache.save_row(0, 66), cache.save_row(1)]
    with session.new_cache(3, 120, 4, chunk=7) as other:
        for row, state in enumerate(states):
            other.load_row(row, state)
        cache.rewind([0, 10])
        cache.move_row(1, 0)
        found = [session.forward(drawn(18, 3, 2), other), session.forward(drawn(19, 2, 2), cache)]
        found.append(session.forward(drawn(20, 1, 1), other, rows=1))
        other.rewind([70, 63, 0])
        found.append(session.forward(drawn(21, 2, 5), other, rows=2))
    saved = [block.ravel() for state in states for pair in state.blocks for block in pair]
    return np.concatenate([*(part.ravel() for part in found), *saved])


def grown(session: Session, cache: KVCache) -> NDArray[Any]:
    session.forward(drawn(10, 2, 90), cache)
    cache.grow(200)
    return session.forward(drawn(11, 2, 50), cache)


@pytest.mark.parametrize("run", [ragged, chunked, rewound, forked, moved, grown])
def test_logits_are_those_of_the_whole_model(
    whole: Session, staged: StagedSession, run: Callable[[Session, KVCache], NDArray[Any]]
) -> None:
    ours, theirs = both(whole, staged, run, chunk=16, reserve=8)
    assert ours.any()
    np.testing.assert_array_equal(ours, theirs)


def test_generation_and_scores_are_those_of_the_whole_model(
    whole: Session, staged: StagedSession
) -> None:
    prompts = [drawn(12, 20).tolist(), drawn(13, 7).tolist()]
    sampling = Sampling(temperature=0.8, top_p=0.9, seed=3)
    for settings in (None, sampling):
        ours, theirs = (
            list(session.generate(prompts, settings, max_new_tokens=24))
            for session in (whole, staged)
        )
        assert ours == theirs
    np.testing.assert_array_equal(whole.score(prompts[0]), staged.score(prompts[0]))
    said = [
        "".join(session.stream_text("Once upon", max_new_tokens=12)) for session in (whole, staged)
    ]
    assert said[0] == said[1] != ""


def test_a_stage_that_ran_ahead_of_a_failed_call_goes_back(whole: Session, stages: Stages) -> None:
    with two(stages[2]) as staged:

        def run(session: Session, cache: KVCache) -> NDArray[Any]:
            session.forward(drawn(14, 2, 12), cache)
            if session is staged:
                first = staged.processes[0]
                call = (cache.lengths, drawn(15, 2, 3), np.array([3, 2]), np.zeros((2, 1), int))
                first.ask("run", call, cache=cache.number)
            return session.forward(drawn(16, 2, 2), cache)

        np.testing.assert_array_equal(*both(whole, staged, run))


def test_sizes_of_caches_are_the_same(whole: Session, staged: StagedSession) -> None:
    with whole.new_cache(3, 50) as ours, staged.new_cache(3, 50) as theirs:
        assert ours.nbytes == theirs.nbytes


def test_a_process_that_dies_ends_the_session_in_one_line(stages: Stages) -> None:
    with two(stages[2]) as session, session.new_cache(1, 30) as cache:
        session.forward([[1, 2]], cache)
        os.kill(session.processes[1].pid, signal.SIGKILL)
        for _ in range(2):
            with pytest.raises(
                RuntimeUnavailable, match=r"layers 3 to 5 of 6\): its process ended"
            ) as caught:
                session.forward([[3]], cache)
            assert "\n" not in str(caught.value)


def test_closing_ends_the_processes(stages: Stages) -> None:
    with two(stages[2]) as session:
        processes = [process.pid for process in session.processes]
        cache = session.new_cache(1, 30)
    for pid in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    with pytest.raises(InputError, match="session: found it closed"):
        session.forward([[1]], cache)
    cache.close()


def test_a_cache_of_another_session_is_refused(whole: Session, staged: StagedSession) -> None:
    with whole.new_cache(1, 8) as cache, pytest.raises(InputError, match="another session"):
        staged.forward([[1]], cache)
    with staged.new_cache(1, 8) as cache:
        with pytest.raises(InputError, match="cache capacity of 8"):
            staged.forward([[1] * 9], cache)
        with pytest.raises(InputError, match="input_ids"):
            staged.forward([[5000]], cache)


def test_wrong_sets_of_stages_are_refused(stages: Stages, demo_package: Package) -> None:
    first, last = stages[2]
    for folders, message in (
        ([], "found none"),
        ([first], "found layers 0 to 2, expected all 6"),
        ([last], "found layers 3 to 5 of 6, expected layers 0 and on"),
        ([first, first, last], "found layers 0 to 2 of 6, expected layers 3 and on"),
        ([demo_package.folder], "expected a stage"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            StagedSession.start(folders)
        assert "\n" not in str(caught.value)


def test_stages_of_another_export_are_refused(
    stages: Stages, demo_checkpoint: Path, tmp_path: Path
) -> None:
    other = export(demo_checkpoint, tmp_path / "other", layers=(3, 6), kv_dtype="float16").folder
    with pytest.raises(InputError, match="found another kv_dtype than in"):
        StagedSession.start([stages[2][0], other])


def test_stages_of_target_ort_are_exact_too(
    ort_package: Package, demo_checkpoint: Path, tmp_path: Path
) -> None:
    folders = [
        export(
            demo_checkpoint, tmp_path / str(cut[0]), target="ort", dense="checkpoint", layers=cut
        )
        for cut in ((0, 2), (2, 6))
    ]
    with (
        Session.open(ort_package.folder, threads=1) as whole,
        two([package.folder for package in folders]) as staged,
    ):
        for run in (ragged, rewound):
            np.testing.assert_array_equal(*both(whole, staged, run, chunk=16, reserve=8))
