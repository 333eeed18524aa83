"""The exporters that exporters.py compares: how each is started, and in which environment."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
VENVS = HERE.parent / "build" / "exporters"
OURS = Path(sys.executable)
Command = Callable[[Path, Path, Path], list[str]]  # checkpoint, output, a folder for caches


@dataclass(frozen=True)
class Way:
    """One way to export.

    Attributes:
        name: heads its column.
        python: of its environment.
        package: whose version is told.
        command: what is run.
        says: one line for the page.
    """

    name: str
    python: Path
    package: str
    command: Command
    says: str

    @property
    def missing(self) -> str:
        """Why it cannot be run here, empty if it can."""
        if self.python.exists():
            return ""
        return f"{self.python.parent.parent.name}: no environment; run exporters_venvs.sh"

    def version(self) -> str:
        """Return the version of the package, empty where the environment is missing."""
        if self.missing:
            return ""
        code = f"from importlib.metadata import version; print(version({self.package!r}))"
        done = subprocess.run([self.python, "-c", code], capture_output=True, text=True, check=True)
        return done.stdout.strip()


def _builder(precision: str) -> Command:
    def command(checkpoint: Path, output: Path, cache: Path) -> list[str]:
        python = VENVS / "genai" / "bin" / "python"
        words = [str(python), "-m", "onnxruntime_genai.models.builder", "-i", str(checkpoint)]
        return [*words, "-o", str(output), "-p", precision, "-e", "cpu", "-c", str(cache)]

    return command


def _transformers(way: str) -> Command:
    def command(checkpoint: Path, output: Path, cache: Path) -> list[str]:
        program = HERE / "export_with_transformers.py"
        return [str(OURS), str(program), way, str(checkpoint), str(output)]

    return command


def _optimum(checkpoint: Path, output: Path, cache: Path) -> list[str]:
    program = VENVS / "optimum" / "bin" / "optimum-cli"
    words = [str(program), "export", "onnx", "--model", str(checkpoint), "--dtype", "fp32"]
    return [*words, "--task", "text-generation-with-past", str(output)]


def _ours(target: str) -> Command:
    def command(checkpoint: Path, output: Path, cache: Path) -> list[str]:
        program = OURS.with_name("gptoss-onnx")
        return [
            str(program),
            "export",
            str(checkpoint),
            "--output",
            str(output),
            "--target",
            target,
        ]

    return command


_GENAI, _OPTIMUM = (VENVS / name / "bin" / "python" for name in ("genai", "optimum"))
WAYS = (
    Way("ours, portable", OURS, "gptoss-onnx", _ours("portable"), "`gptoss-onnx export`"),
    Way("ours, ort", OURS, "gptoss-onnx", _ours("ort"), "`gptoss-onnx export --target ort`"),
    Way(
        "genai fp32",
        _GENAI,
        "onnxruntime-genai",
        _builder("fp32"),
        "`python -m onnxruntime_genai.models.builder -p fp32 -e cpu`",
    ),
    Way(
        "genai int4",
        _GENAI,
        "onnxruntime-genai",
        _builder("int4"),
        "the same with `-p int4`, what its documentation uses",
    ),
    Way(
        "optimum",
        _OPTIMUM,
        "optimum-onnx",
        _optimum,
        "`optimum-cli export onnx --task text-generation-with-past --dtype fp32`, transformers "
        "4.57.6",
    ),
    Way(
        "transformers",
        OURS,
        "transformers",
        _transformers("exporters"),
        "`transformers.exporters`: `OnnxExporter().export_for_generation(…, "
        "OnnxConfig(dynamic=True))`",
    ),
    Way(
        "torch.onnx",
        OURS,
        "torch",
        _transformers("torch"),
        "`torch.onnx.export(…, dynamo=True)` of transformers' model",
    ),
)
