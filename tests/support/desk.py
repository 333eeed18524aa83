"""A desk on which a test spoils a checkpoint or a package, and sees a command refuse it in one
line.
"""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gptoss_onnx.cli import main
from support.tiny_package import clone, tiny_checkpoint, tiny_package

Words = str | tuple[str, ...]


class Desk:
    """A folder with a `checkpoint` and a `package` of its own, both free to be spoilt."""

    def __init__(self, folder: Path, factory: pytest.TempPathFactory) -> None:
        self.folder = folder
        self.checkpoint = clone(tiny_checkpoint(factory), folder / "checkpoint")
        self.package = clone(tiny_package(factory), folder / "package")
        self.weights = self.checkpoint / "model.safetensors"
        self.output = folder / "output"

    def refused(self, words: Words, *arguments: object) -> str:
        """Run a command line and return its one line on stderr, after checking that nothing else
        came of it.
        """
        before = self._everything()
        result = CliRunner().invoke(
            main, [str(argument) for argument in arguments], prog_name="gptoss-onnx"
        )
        line = result.stderr
        assert result.exit_code == 2, line
        assert result.stdout == ""
        assert line.startswith("error: ")
        assert line.count("\n") == 1
        assert "Traceback" not in line
        assert "unexpected" not in line.split()[1]
        for word in (words,) if isinstance(words, str) else words:
            assert word in line
        assert self._everything() == before
        return line

    def refused_export(self, words: Words, *more: object) -> str:
        """Expect `export` of the checkpoint to be refused."""
        return self.refused(words, "export", self.checkpoint, "--output", self.output, *more)

    def refused_generate(self, words: Words, *more: object) -> str:
        """Expect `generate` with the package to be refused."""
        prompt = (
            ()
            if {"--prompt", "--prompt-tokens"} & {*map(str, more)}
            else ("--prompt-tokens", "1,2,3")
        )
        return self.refused(words, "generate", self.package, *prompt, "--max-new-tokens", 2, *more)

    def edit_config(self, **changes: Any) -> None:
        """Change keys of config.json; None takes one out."""
        path = self.checkpoint / "config.json"
        document = json.loads(path.read_text()) | changes
        path.write_text(
            json.dumps({key: value for key, value in document.items() if value is not None})
        )

    def edit_header(self, edit: Callable[[dict[str, Any]], None]) -> None:
        """Rewrite the header of the checkpoint's safetensors file."""
        data = self.weights.read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + length])
        edit(header)
        text = json.dumps(header).encode()
        self.weights.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])

    def edit_manifest(self, **changes: Any) -> None:
        """Change keys of manifest.json."""
        path = self.package / "manifest.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    def _everything(self) -> list[str]:
        return sorted(str(path) for path in self.folder.rglob("*"))
