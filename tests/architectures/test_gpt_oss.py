"""gpt-oss against transformers' GptOssForCausalLM, from checkpoints that transformers wrote."""

from pathlib import Path

import pytest

from support.architecture_judge import Case

CASES = {
    "as is": {},
    "one kv head": {"num_attention_heads": 5, "num_key_value_heads": 1},
    "tied": {"tie_word_embeddings": True},
    "full layers alone": {"layer_types": ["full_attention"] * 4},
}


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_the_reference(changes: dict[str, object], tmp_path: Path) -> None:
    Case.write(
        "gpt_oss", changes, tmp_path, sharded="tie_word_embeddings" in changes
    ).check_reference()


def test_packages(tmp_path: Path) -> None:
    case = Case.write("gpt_oss", {}, tmp_path / "checkpoint")
    case.check_package(tmp_path / "portable", "portable", "auto")
    case.check_package(tmp_path / "portable", "portable", "portable")
    case.check_package(tmp_path / "ort", "ort", "auto")
