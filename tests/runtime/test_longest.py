"""The longest sequence: calls up to it run, and what would go beyond is refused in one line."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gptoss_onnx.errors import InputError
from gptoss_onnx.exporter import export
from gptoss_onnx.reference import Decoder, open_checkpoint
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document
from gptoss_onnx.runtime import Sampling, Session
from support.command_line import run
from support.tiny_package import byte_tokenizer
from support.tolerances import PACKAGE_LOGITS

LONGEST = 24  # learned positions: the graph has no vector for a 25th
TOKENS = list(range(40, 40 + LONGEST))
BEYOND = f"exceed {LONGEST}, the longest sequence that this model takes"
ENDLESS = Sampling(stop_tokens=())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("gpt2")
    make_checkpoint(root / "checkpoint", tiny_document("gpt2", n_positions=LONGEST))
    byte_tokenizer().save(str(root / "checkpoint" / "tokenizer.json"))
    export(root / "checkpoint", root / "package")
    return root


@pytest.fixture(scope="module")
def session(folder: Path) -> Iterator[Session]:
    with Session.open(folder / "package", threads=1) as opened:
        yield opened


def test_a_larger_cache_makes_no_longer_sequence(session: Session) -> None:
    with session.new_cache(1, LONGEST + 9) as cache:
        with pytest.raises(InputError, match=rf"row 0: 0 cached \+ 25 new tokens {BEYOND}"):
            session.forward([[*TOKENS, 1]], cache)
        assert cache.lengths.tolist() == [0]
        whole = session.forward([TOKENS], cache)
        with pytest.raises(InputError, match=rf"row 0: 24 cached \+ 1 new tokens {BEYOND}"):
            session.forward([[1]], cache)
        cache.rewind(LONGEST - 1)
        again = session.forward([TOKENS[-1:]], cache)
    np.testing.assert_allclose(again, whole, atol=PACKAGE_LOGITS, rtol=0)


def test_padding_may_lie_beyond(session: Session, folder: Path) -> None:
    new = [1, 6, 2]
    with session.new_cache(3, LONGEST) as cache:
        held = [TOKENS[: LONGEST - 1], TOKENS[:3], TOKENS[:10]]
        padded = [row + [0] * (LONGEST - len(row)) for row in held]
        session.forward(padded, cache, [len(row) for row in held])
        with pytest.raises(InputError, match=rf"row 0: 23 cached \+ 2 new tokens {BEYOND}"):
            session.forward([[7] * 6] * 3, cache, [2, 6, 2])
        found = session.forward([[7] * 6] * 3, cache, new)  # columns up to position 28 on row 0
        assert cache.lengths.tolist() == [24, 9, 12]
    with open_checkpoint(folder / "checkpoint") as checkpoint:
        model = Decoder.from_checkpoint(checkpoint)
        for row, logits in enumerate(found):
            expected = model.score(held[row] + [7] * new[row])[-1:]
            np.testing.assert_allclose(logits, expected, atol=PACKAGE_LOGITS, rtol=0)


@pytest.mark.parametrize("own", [True, False])
def test_generation_ends_there(session: Session, own: bool) -> None:
    cache = None if own else session.new_cache(2, 2 * LONGEST)
    prompts = [TOKENS[:20], TOKENS]
    generation = session.generate(prompts, ENDLESS, max_new_tokens=99, cache=cache)
    list(generation)
    # the last token is chosen but not run
    assert [len(row) for row in generation.tokens] == [5, 1]
    assert generation.finish_reasons == ("length", "length")
    with pytest.raises(InputError, match=r"row 1: found 25 tokens, expected at most 24"):
        session.generate([TOKENS, [*TOKENS, 1]], ENDLESS)


def test_so_does_text(session: Session) -> None:
    text = session.stream_text(TOKENS[:20], ENDLESS)
    list(text)
    assert (text.finish_reason, len(text.tokens)) == ("length", 5)
    with pytest.raises(InputError, match="found 25 tokens, expected at most 24"):
        session.stream_text([*TOKENS, 1])


def test_so_does_the_command_line(folder: Path) -> None:
    command = ("generate", str(folder / "package"), "--prompt-tokens")
    said = run(*command, ",".join(map(str, TOKENS[:20])), "--json")
    answer = json.loads(said.stdout)
    assert (answer["finish_reason"], len(answer["tokens"])) == ("length", 5)
    refused = run(*command, ",".join(map(str, [*TOKENS, 1])))
    assert refused.exit_code == 2
    assert "found 25 tokens, expected at most 24, the longest this model takes" in refused.stderr
