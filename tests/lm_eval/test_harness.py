"""lm-evaluation-harness itself scores the demo package, in the environment of `venv.sh`."""

import json
import math
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from gptoss_onnx.exporter import Package
from gptoss_onnx.lm_eval.scoring import rolling_windows
from gptoss_onnx.reference import Decoder, open_checkpoint
from gptoss_onnx.runtime import Tokenizer
from support.tolerances import LOG_LIKELIHOOD

PYTHON = Path(__file__).parents[2] / "build" / "lm-eval" / "bin" / "python"
TASKS = Path(__file__).parent / "tasks"
TEXTS = (
    "When the rain had stopped they walked down to the village together.",
    ("It was a bright morning, and she had not yet made up her mind what to say to him. " * 3)[:-1],
)
QUESTIONS = (
    {"text": "They walked down to the", "choices": [" village", " seventeen"], "answer": 0},
    {"text": "She was very much", "choices": [" of of", " surprised"], "answer": 1},
)
BEGIN = 2041  # <|startoftext|> of the demo checkpoint

pytestmark = [
    pytest.mark.lm_eval,
    pytest.mark.skipif(not PYTHON.exists(), reason="tests/lm_eval/venv.sh has not been run"),
]


def run(*words: object) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    command = [str(PYTHON), "-m", "gptoss_onnx.lm_eval", *map(str, words)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def task(folder: Path, name: str, lines: tuple[Any, ...]) -> None:
    """Write a task and its documents into a folder."""
    data = folder / f"{name}.jsonl"
    data.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    text = (TASKS / f"{name}.yaml").read_text()
    (folder / f"{name}.yaml").write_text(text.replace("DATA_FILE", str(data)))


def test_the_harness_finds_the_references_perplexity(
    demo_package: Package, demo_checkpoint: Path, tmp_path: Path
) -> None:
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    task(tasks, "demo_text", tuple({"text": text} for text in TEXTS))
    task(tasks, "demo_choice", QUESTIONS)
    done = run(
        *("run", "--model", "gptoss-onnx", "--model_args", f"package={demo_package.folder}"),
        *("--include_path", tasks, "--tasks", "demo_text", "demo_choice"),
        *("--output_path", tmp_path / "found"),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (path,) = (tmp_path / "found").rglob("results_*.json")
    results = json.loads(path.read_text())["results"]
    total = log_likelihood(demo_package, demo_checkpoint)
    words = sum(len(text.split()) for text in TEXTS)
    size = sum(len(text.encode()) for text in TEXTS)
    found = results["demo_text"]
    for name, expected in (
        ("word_perplexity", math.exp(-total / words)),
        ("byte_perplexity", math.exp(-total / size)),
        ("bits_per_byte", -total / size / math.log(2)),
    ):
        assert found[f"{name},none"] == pytest.approx(expected, rel=10 * LOG_LIKELIHOOD)
    assert results["demo_choice"]["acc,none"] == 1


def log_likelihood(package: Package, checkpoint: Path) -> float:
    """Return that of all texts, by the reference."""
    tokenizer = Tokenizer.open(package.folder)
    total = 0.0
    with open_checkpoint(checkpoint) as opened:
        model = Decoder.from_checkpoint(opened)
        for text in TEXTS:
            ((before, after),) = rolling_windows(tokenizer.encode(text), BEGIN, 1024)
            rows = model.score([*before, *after]).double().log_softmax(-1)[:-1]
            total += float(rows[range(len(after)), after].sum())
    return total


def test_an_error_of_ours_is_one_line(tmp_path: Path) -> None:
    missing = tmp_path / "none"
    task(tmp_path, "demo_choice", QUESTIONS)
    done = run(
        *("run", "--model", "gptoss-onnx", "--model_args", f"package={missing}"),
        *("--include_path", tmp_path, "--tasks", "demo_choice"),
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"error: {missing}: not a folder")
