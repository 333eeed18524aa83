"""GPT-2 against transformers' GPT2LMHeadModel, from checkpoints that transformers wrote."""

from pathlib import Path

import pytest

from support.architecture_judge import Case

CASES = {
    "as is": {},
    "untied": {"tie_word_embeddings": False},
    "exact gelu, unscaled": {"activation_function": "gelu", "scale_attn_weights": False},
    "four times as wide": {"n_inner": None, "n_embd": 48},
}


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_the_reference(changes: dict[str, object], tmp_path: Path) -> None:
    Case.write("gpt2", changes, tmp_path, sharded="n_inner" in changes).check_reference()


def test_packages(tmp_path: Path) -> None:
    case = Case.write("gpt2", {}, tmp_path / "checkpoint")
    case.check_package(tmp_path / "portable", "portable", "portable")
    case.check_package(tmp_path / "ort", "ort", "auto")
