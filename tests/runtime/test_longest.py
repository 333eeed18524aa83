"""No row passes the longest sequence of its model: GPT-2's learned positions end there."""

from collections.abc import Iterator

import numpy as np
import pytest
from click.testing import CliRunner

from gptoss_onnx.cli import main
from gptoss_onnx.errors import InputError
from gptoss_onnx.exporter import Package, export
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document
from gptoss_onnx.runtime import Sampling, Session

LONGEST = 24
TOKENS = list(range(1, LONGEST + 1))
ENDLESS = Sampling(stop_tokens=())


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    folder = tmp_path_factory.mktemp("longest")
    make_checkpoint(folder / "checkpoint", tiny_document("gpt2", n_positions=LONGEST), seed=3)
    return export(folder / "checkpoint", folder / "package")


@pytest.fixture(params=["native", "portable"])
def session(package: Package, request: pytest.FixtureRequest) -> Iterator[Session]:
    with Session.open(package.folder, kernels=request.param, threads=1) as opened:
        yield opened


def test_the_last_position_runs_and_the_next_is_refused(session: Session) -> None:
    with session.new_cache(1, 2 * LONGEST) as cache:
        assert np.isfinite(session.forward([TOKENS], cache)).all()
        with pytest.raises(InputError, match=f"24 cached \\+ 1 new tokens exceed {LONGEST}"):
            session.forward([[1]], cache)
        assert cache.lengths.tolist() == [LONGEST]


def test_padding_beyond_the_last_position_does_no_harm(session: Session) -> None:
    """The second row's padding would lie behind the table of positions."""
    alone = session.score([*TOKENS[:20], 5])[-1]
    with session.new_cache(2, 2 * LONGEST, chunk=8) as cache:
        session.forward([TOKENS[:16], TOKENS[:16]], cache)
        session.forward([TOKENS[16:20], TOKENS[16:20]], cache)
        padded = [[*TOKENS[20:24], 0, 0], [5, 0, 0, 0, 0, 0]]
        found = session.forward(padded, cache, new_lengths=[4, 1])
    assert np.abs(found[1, 0] - alone).max() < 1e-4


def test_generation_ends_there(session: Session) -> None:
    generation = session.generate(TOKENS[:20], ENDLESS, max_new_tokens=99)
    assert len(list(generation)) == LONGEST - 20 + 1  # the last one is not run
    assert generation.finish_reason == "length"


def test_the_command_line_says_so(package: Package) -> None:
    prompt = ",".join(map(str, [*TOKENS, 1]))
    done = CliRunner().invoke(main, ["generate", str(package.folder), "--prompt-tokens", prompt])
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert f"found {LONGEST + 1} tokens, expected at most {LONGEST}" in done.stderr
