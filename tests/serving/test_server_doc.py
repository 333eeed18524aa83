"""The Python examples of docs/server.md run as they are printed, against `serve` of the demo."""

import re
from pathlib import Path

import pytest

from gptoss_onnx.exporter import Package
from support.serve_command import served

PAGE = Path(__file__).parents[2] / "docs" / "server.md"
ADDRESS = "http://127.0.0.1:8000"


def test_python_examples(demo_package: Package, capsys: pytest.CaptureFixture[str]) -> None:
    examples = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(examples) == 4
    assert examples[0].count(ADDRESS) == 1
    scope: dict[str, object] = {}
    with served(demo_package.folder) as server:
        for example in examples:
            exec(example.replace(ADDRESS, server.url), scope)
            assert len(capsys.readouterr().out) > 20, example
        assert server.stop() == (0, "stopping\n")
