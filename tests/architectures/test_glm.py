"""GLM against transformers' GlmForCausalLM, from checkpoints that transformers wrote."""

from pathlib import Path

import pytest

from support.architecture_judge import Case

CASES = {
    "as is": {},
    "tied": {"tie_word_embeddings": True},
    "no bias": {"attention_bias": False},
    "one kv head": {"num_key_value_heads": 1},
}


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_the_reference(changes: dict[str, object], tmp_path: Path) -> None:
    Case.write("glm", changes, tmp_path, sharded="num_key_value_heads" in changes).check_reference()


def test_packages(tmp_path: Path) -> None:
    case = Case.write("glm", {}, tmp_path / "checkpoint")
    case.check_package(tmp_path / "portable", "portable", "portable")
    case.check_package(tmp_path / "ort", "ort", "auto")
