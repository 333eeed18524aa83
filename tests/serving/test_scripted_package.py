"""The package that tests of the server talk to says its scripts, whatever stands around them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gptoss_onnx.runtime import Sampling, Session
from support.scripted_package import letter, write_scripted_package

SCRIPTS: list[str | list[int]] = [
    "<|channel|>final<|message|>First 😀.<|return|>",
    "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>B<|end|>",
    [7, 7, 250, 8],
]


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    folder = tmp_path_factory.mktemp("scripted") / "package"
    with Session.open(write_scripted_package(folder, SCRIPTS), threads=1) as opened:
        yield opened


def asked(session: Session, text: str) -> list[int]:
    return session.tokenizer.encode_chat([{"role": "user", "content": text}])


def said(session: Session, script: int) -> list[int]:
    text = SCRIPTS[script]
    return session.tokenizer.encode(text) if isinstance(text, str) else text


def test_each_letter_has_its_script(session: Session) -> None:
    for script in range(len(SCRIPTS)):
        prompt = asked(session, f"Say {letter(script)}")
        expected = said(session, script)
        generation = session.generate(prompt, Sampling(temperature=1.0, seed=3), max_new_tokens=40)
        assert list(generation)[: len(expected)] == expected
    last = asked(session, f"{letter(0)} and then {letter(1)}")
    assert next(iter(session.generate(last))) == said(session, 1)[0]


def test_chunks_and_rows_of_a_batch_change_nothing(session: Session) -> None:
    prompts = [asked(session, f"Say {letter(0)}"), asked(session, "x" * 90 + letter(1))]
    generated = session.generate(prompts, max_new_tokens=9)
    rows = list(zip(*generated, strict=True))
    for script, row in enumerate(rows):
        assert list(row) == said(session, script)[:9]
    with session.new_cache(1, 300, chunk=16) as cache:
        first = next(iter(session.generate(prompts[1], cache=cache)))
    assert first == said(session, 1)[0]


def test_without_a_letter_there_is_no_answer(session: Session) -> None:
    assert list(session.generate(asked(session, "Hello"))) == [
        session.tokenizer.special_tokens["<|return|>"]
    ]


def test_a_folder_is_a_package(session: Session, tmp_path: Path) -> None:
    text = write_scripted_package(tmp_path / "text", ["and so on<|return|>"], suffix="")
    with Session.open(text, threads=1) as opened:
        assert "".join(opened.stream_text(f"Go {letter(0)}")) == "and so on"
