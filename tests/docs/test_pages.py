"""The commands and Python examples of each page, run in their order in a folder of their own."""

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gptoss_onnx.exporter import Package
from gptoss_onnx.package import TEMPLATE_FILE
from gptoss_onnx.validation.cases import table
from gptoss_onnx.validation.columns import session as columns
from support.command_line import run
from support.doc_blocks import Block, blocks, pages

RUN = [page for page in pages() if any(block.is_run_here for block in blocks(page))]
# Names that the pages give to checkpoints, packages and texts.
CHECKPOINTS = ("demo/checkpoint", "checkpoint", "openai/gpt-oss-20b", "my-gpt-oss", "fine-tune")
PACKAGES = ("demo/package", "package", "gpt-oss-20b-onnx", "small-package")
TEXTS = {"notes.txt": "It was a truth", "code.py": "She was vexed", "rules.txt": "Be brief."}
EFFORT = "{%- set effort = reasoning_effort -%}"
CASES = ("load", "prefill", "greedy")  # `make demo` runs all of them


@pytest.fixture
def folder(
    tmp_path: Path,
    demo_checkpoint: Path,
    demo_package: Package,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """What the commands find where they are typed: every model is the demo."""
    for name in CHECKPOINTS:
        shutil.copytree(demo_checkpoint, tmp_path / name, copy_function=os.link)
    for name in PACKAGES:
        shutil.copytree(demo_package.folder, tmp_path / name)
    template = (demo_checkpoint / TEMPLATE_FILE).read_text(encoding="utf-8")
    for name in ("openai/gpt-oss-20b", "gpt-oss-20b-onnx"):  # gpt-oss reads what the demo does not
        (tmp_path / name / TEMPLATE_FILE).unlink()
        (tmp_path / name / TEMPLATE_FILE).write_text(EFFORT + template, encoding="utf-8")
    for name, text in TEXTS.items():
        (tmp_path / name).write_text(text, encoding="utf-8")

    def some(*arguments: Any) -> Any:
        return (case for case in table.cases(*arguments) if case.name in CASES)

    monkeypatch.setattr(columns, "cases", some)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", RUN)
def test_page(page: str, folder: Path) -> None:
    scope: dict[str, object] = {}
    found = blocks(page)
    for block, after in zip(found, [*found[1:], None], strict=True):
        if not block.is_run_here:
            continue
        printed = run_block(block, scope)
        if block.said == "prints":
            assert after is not None
            assert after.language == "text", after.place
            assert printed.rstrip() == after.text.rstrip(), after.place


def run_block(block: Block, scope: dict[str, object]) -> str:
    """Run a block as it is printed, and return what it prints."""
    if block.language == "python":
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(block.text, block.place, "exec"), scope)
        return out.getvalue()
    return "".join(run_command(command, block.place) for command in block.commands)


def run_command(command: str, place: str) -> str:
    """Run a command: ours in this process, others in a shell."""
    if not command.startswith("gptoss-onnx "):
        done = subprocess.run(["bash", "-c", command], text=True, capture_output=True, check=False)
        assert done.returncode == 0, (place, command, done.stderr)
        return done.stdout
    read = re.sub(r"\$\(cat (\S+)\)", lambda m: Path(m[1]).read_text(encoding="utf-8"), command)
    # What the hub has lies in a folder here, so there is nothing to download.
    words = [word for word in shlex.split(read, comments=True)[1:] if word != "--download"]
    if "--output" in words and "--force" not in words:  # of an earlier command of the page
        shutil.rmtree(words[words.index("--output") + 1], ignore_errors=True)
    result = run(*words, input="")
    assert result.exit_code == 0, (place, command, result.output)
    return result.stdout
