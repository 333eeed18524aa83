"""The examples of docs/server.md, in Python and with curl, run as they are printed, against `serve`
of a package that says what the examples ask for.
"""

import json
import re
import subprocess
from pathlib import Path

import pytest

from gptoss_onnx.cli.serve import serve
from support.scripted_package import letter, write_scripted_package
from support.serve_command import served

PAGE = Path(__file__).parents[2] / "docs" / "server.md"
ADDRESS, QUESTION = "http://127.0.0.1:8000", "Why are there tides?"
FINAL = "<|channel|>final<|message|>{}<|return|>"
CALL = (
    "<|channel|>commentary to=functions.tide_at <|constrain|>json<|message|>"
    '{"place": "Brest"}<|call|>'
)
SCRIPTS = [FINAL.format("The Moon."), CALL, FINAL.format('{"tides_a_day": 2}')]
PRINTED = [
    "The Moon.\nThe Moon.",
    'tide_at {"place": "Brest"}\n',
    '{"tides_a_day": 2}\n',
    "The Moon.\nThe Moon.\n",
]


def test_every_option_is_explained() -> None:
    text = PAGE.read_text(encoding="utf-8")
    options = {option for parameter in serve.params for option in parameter.opts if "--" in option}
    assert len(options) > 20
    assert {option for option in options if not re.search(rf"{option}(?![\w-])", text)} == set()


def test_curl_example(tmp_path: Path) -> None:
    shown = re.findall(r"```sh\n(curl .*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(shown) == 1
    with served(write_scripted_package(tmp_path / "tides", SCRIPTS[:1])) as server:
        typed = shown[0].replace("curl ", "curl -sS ").replace(ADDRESS, server.url)
        typed = typed.replace(QUESTION, f"{QUESTION} {letter(0)}")
        printed = subprocess.run(["bash", "-c", typed], capture_output=True, text=True, check=True)
        assert json.loads(printed.stdout)["choices"][0]["message"]["content"] == "The Moon."


def test_python_examples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    examples = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(examples) == len(PRINTED)
    assert examples[0].count(ADDRESS) == 1
    scope: dict[str, object] = {}
    with served(write_scripted_package(tmp_path / "tides", SCRIPTS)) as server:
        for place, (example, printed) in enumerate(zip(examples, PRINTED, strict=True)):
            script = letter(place % len(SCRIPTS))
            scope["question"] = [{"role": "user", "content": f"{QUESTION} {script}"}]
            asked = example.replace(ADDRESS, server.url).replace(QUESTION, f"{QUESTION} {script}")
            exec(asked.replace("And on Mars?", f"And on Mars? {script}"), scope)
            assert capsys.readouterr().out == printed
        assert server.stop() == (0, "stopping\n")
