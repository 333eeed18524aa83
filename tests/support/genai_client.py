"""Ask onnxruntime-genai in its own environment, through tests/clients/genai_program.py."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

CLIENTS = Path(__file__).parents[1] / "clients"
PYTHON = Path(__file__).parents[2] / "build" / "clients" / "genai" / "bin" / "python"

marks = [
    pytest.mark.genai,
    pytest.mark.clients,
    pytest.mark.skipif(
        not PYTHON.exists(), reason="no build/clients/genai: run tests/clients/genai_venv.sh"
    ),
]

Step = tuple[Any, ...]
ROOM = 64  # tokens that no window of a test's model exceeds: caches must hold a window


def python(*arguments: str | Path, given: object = None) -> str:
    """Run the Python of that environment with `given` as JSON on stdin; return what it printed."""
    done = subprocess.run(
        [PYTHON, *arguments], capture_output=True, text=True, check=False, input=json.dumps(given)
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def ask(command: str, package: Path, **asked: Any) -> Any:
    """Run one command of genai_program.py, which says what each takes and gives."""
    return json.loads(python(CLIENTS / "genai_program.py", command, package, given=asked))


def run(most: int, *steps: Step, **search: int) -> dict[str, Any]:
    """Return a run for the command `generate` of at most `most` tokens a row, which no end token
    ends.
    """
    return {"search": {"max_length": most, "min_length": most, **search}, "steps": steps}


def continuations(
    package: Path, prompts: Sequence[Sequence[int]], count: int, **asked: Any
) -> list[list[int]]:
    """Return `count` greedy tokens after each prompt, each from a generator of its own."""
    runs = [
        run(max(ROOM, len(ids) + count), ("append", [ids]), ("generate", count)) for ids in prompts
    ]
    return [tokens_of(answer) for answer in ask("generate", package, runs=runs, **asked)]


def tokens_of(answer: Mapping[str, Any]) -> list[int]:
    """Return the tokens of a run of one row, which must not have failed."""
    assert answer["error"] is None, answer["error"]
    (tokens,) = answer["tokens"]
    return list(tokens)
