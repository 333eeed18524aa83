"""The Python examples of the README and of docs/chat.md run as they are printed, on the demo
package.
"""

import re
from pathlib import Path

import pytest

from gptoss_onnx.exporter import Package

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"


def test_python_example(demo_package: Package, capsys: pytest.CaptureFixture[str]) -> None:
    found = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    (example,) = (example for example in found if '"gpt-oss-20b-onnx"' in example)
    scope: dict[str, object] = {}
    exec(example.replace('"gpt-oss-20b-onnx"', repr(str(demo_package.folder))), scope)
    assert scope["logits"].shape == (2, 1, demo_package.manifest.model["vocab_size"])
    assert scope["cache"].lengths.tolist() == [2, 1]
    assert len(capsys.readouterr().out) > 40


def test_chat_example(demo_package: Package, capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "docs" / "chat.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert example.count('"gpt-oss-20b-onnx"') == 1
    scope: dict[str, object] = {}
    exec(example.replace('"gpt-oss-20b-onnx"', repr(str(demo_package.folder))), scope)
    assert scope["calls"] == []
    assert len(capsys.readouterr().out) > 400
