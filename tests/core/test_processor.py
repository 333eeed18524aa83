"""A processor's name tells apart what its maker calls alike."""

from pathlib import Path

import pytest

from gptoss_onnx.processor import cpu_name

LINUX = """processor\t: 0
cpu family\t: 25
model\t\t: 17
model name\t: AMD EPYC

processor\t: 1
model\t\t: 99
"""


@pytest.mark.parametrize(
    ("text", "name"),
    [
        pytest.param(LINUX, "AMD EPYC (family 25, model 17)", id="x86"),
        pytest.param("model name\t: Made up\n", "Made up", id="no family"),
    ],
)
def test_family_and_model_follow_the_name(
    monkeypatch: pytest.MonkeyPatch, text: str, name: str
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda _: text)
    assert cpu_name() == name
