"""PromptCache: a file with the row of a prompt serves prompts that begin alike, and no others."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gptoss_onnx.errors import InputError, PackageError
from gptoss_onnx.runtime import Sampling, Session, prompt_cache
from gptoss_onnx.runtime.prompt_cache import PromptCache
from support.fake_package import VOCAB, write_fake_package

WINDOWS = (0, 3, 8)
SYSTEM = [(7 * place) % VOCAB for place in range(40)]
LOOP = Sampling(stop_tokens=())


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    folder = write_fake_package(tmp_path_factory.mktemp("package"), WINDOWS, sign=-1)
    with Session.open(folder, threads=1) as opened:
        yield opened


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "prompt.safetensors"


def said(session: Session, path: Path, prompt: list[int]) -> tuple[int, list[int]]:
    """Return how many tokens of a prompt came from the file, and what is said after it."""
    kept = PromptCache.open(path, session.package, session.activations)
    with kept.read(session, prompt, 12) as cache:
        assert cache.tokens[0].tolist() == prompt[:-1]
        tokens = session.generate(prompt[-1:], LOOP, max_new_tokens=12, cache=cache)
        return kept.cached, list(tokens)


def test_prompts_that_begin_alike(session: Session, path: Path) -> None:
    written = None
    for end, cached in (
        ([1, 2, 3], 0),
        ([1, 2, 3], 42),
        ([4, 5], 40),
        ([1, 2, 9, 9], 42),
        ([], 39),
    ):
        prompt = SYSTEM + end
        expected = list(session.generate(prompt, LOOP, max_new_tokens=12))
        assert said(session, path, prompt) == (cached, expected)
        assert written in (None, path.stat().st_mtime_ns)  # it serves, so it stays
        written = path.stat().st_mtime_ns


def test_a_prompt_that_begins_otherwise_takes_the_file_over(session: Session, path: Path) -> None:
    other = [5, *SYSTEM, 3]
    for prompt, cached in (([*SYSTEM, 3], 0), (other, 0), (other, 41), ([*other, *[1] * 60], 41)):
        expected = list(session.generate(prompt, LOOP, max_new_tokens=12))
        assert said(session, path, prompt) == (cached, expected)
    assert said(session, path, [*other, *[1] * 60, 2])[0] == 101  # less than half came from it


def test_windows_go_back_as_far_as_the_reserve(
    session: Session, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompt_cache, "RESERVE", 3)
    long = SYSTEM * 30  # more than a chunk, so that windows wrap
    assert said(session, path, [*long, 1])[0] == 0
    assert said(session, path, [*long[:-2], 1])[0] == len(long) - 2
    assert said(session, path, [*long[:-9], 1])[0] == 0


def test_one_token_has_nothing_to_keep(session: Session, path: Path) -> None:
    expected = list(session.generate([4], LOOP, max_new_tokens=12))
    assert said(session, path, [4]) == (0, expected)
    assert not path.exists()


def test_files_that_are_refused_stay(session: Session, path: Path, tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("my notes")
    with pytest.raises(PackageError, match="notes: found 8 bytes with a header of"):
        PromptCache.open(tmp_path / "notes", session.package, "exact")
    assert (tmp_path / "notes").read_text() == "my notes"
    with pytest.raises(InputError, match="found no such folder"):
        PromptCache.open(tmp_path / "missing" / "file", session.package, "exact")
    said(session, path, [*SYSTEM, 1])
    with pytest.raises(PackageError, match="computed with activations 'exact', expected those of"):
        PromptCache.open(path, session.package, "int8")
    folder = write_fake_package(tmp_path / "other", WINDOWS, bias=[1.0] * VOCAB)
    with (
        Session.open(folder, threads=1) as other,
        pytest.raises(PackageError, match=r"saved from another package, 'package\d', than .*other"),
    ):
        PromptCache.open(path, other.package, "exact")


def test_a_cache_saves_and_loads_its_rows(session: Session, path: Path) -> None:
    source, target = session.new_cache(2, 60), session.new_cache(3, 70)
    session.forward(np.array([SYSTEM, SYSTEM[::-1]]), source)
    source.save(path, session, row=1)
    target.load(path, session.package, row=2)
    assert target.tokens[2].tolist() == SYSTEM[::-1]
    both = [
        session.forward([[3]] * cache.batch, cache)[row]
        for cache, row in ((source, 1), (target, 2))
    ]
    np.testing.assert_array_equal(*both)
    with pytest.raises(InputError, match="row: found 3"):
        target.load(path, session, row=3)
