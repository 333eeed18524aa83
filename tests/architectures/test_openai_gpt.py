"""The first GPT against transformers, from checkpoints that transformers wrote."""

from pathlib import Path

import pytest

from support.architecture_judge import Case

CASES = {
    "as is": {},
    "untied": {"tie_word_embeddings": False},
    "relu": {"afn": "relu"},
    "narrow": {"n_embd": 48},
}


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_the_reference(changes: dict[str, object], tmp_path: Path) -> None:
    Case.write("openai-gpt", changes, tmp_path, sharded="n_embd" in changes).check_reference()


def test_packages(tmp_path: Path) -> None:
    case = Case.write("openai-gpt", {}, tmp_path / "checkpoint")
    case.check_package(tmp_path / "portable", "portable", "portable")
    case.check_package(tmp_path / "ort", "ort", "auto")
