"""The C++ client as the tests run it: ONNX Runtime fetched once, the client built with warnings as
errors, called.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from gptoss_onnx.custom_ops.library import library_path
from support.one_run import once

ROOT = Path(__file__).parent.parent.parent
ONNXRUNTIME = ROOT / "build" / "onnxruntime"
BUILD = ROOT / "build" / "clients" / "cpp_probe"


@dataclass(frozen=True)
class Result:
    """What a program did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The document it printed; refuses the constants NaN and Infinity, which JSON does not
        have.
        """
        document: dict[str, Any] = json.loads(self.out, parse_constant=_no_constant)
        return document


@dataclass(frozen=True)
class Limits:
    """What a program may take at most: seconds, and bytes of address space."""

    seconds: float = 10
    memory: int = 1 << 30

    def around(self, words: list[str]) -> list[str]:
        """Return the words of a shell that limits itself and becomes the program.

        A function of Python that did so in the child would make it a fork of all of pytest.
        """
        kilobytes = self.memory // 1024
        return ["sh", "-c", f'ulimit -v {kilobytes} && exec "$@"', "sh", *words]


@dataclass(frozen=True)
class Client:
    """The built programs and the library with the native kernels."""

    program: Path
    probe: Path
    library: Path

    def run(
        self, *words: str | Path, env: dict[str, str] | None = None, limits: Limits | None = None
    ) -> Result:
        """Run `gptoss-generate` with the native kernels unless `--kernels portable` is among the
        words.
        """
        native = [] if "portable" in words else ["--library", self.library]
        return run(self.program, *native, "--threads", "1", *words, env=env, limits=limits)

    def generate(self, package: Path, prompt: list[int], *words: str) -> dict[str, Any]:
        """Return the JSON document of a generation."""
        ids = ",".join(map(str, prompt))
        result = self.run(package, "--prompt-tokens", ids, "--json", *words)
        assert result.code == 0, result.err
        return result.json

    def refused(self, package: Path, *words: str) -> str:
        """Return the line that a run ends with, which says nothing else, soon; without words it
        verifies.
        """
        result = self.run(package, *(words or ("--verify",)), limits=Limits())
        assert (result.code, result.out) == (2, ""), result
        assert result.err.startswith("gptoss-generate: ")
        assert result.err.endswith("\n")
        assert result.err[:-1].isprintable()
        assert len(result.err) < 2000
        return result.err

    def score(
        self,
        package: Path,
        tokens: list[int],
        chunk: int,
        first: int,
        vocab: int,
        library: str | None = None,
    ) -> NDArray[np.float32]:
        """Return the logits (T, V) of all positions, run `chunk` a call, `first` tokens before the
        others. `library` is "-" for target ort.
        """
        words = [package, library or self.library, str(chunk), str(first), *map(str, tokens)]
        bytes_ = subprocess.run(
            [self.probe, "score", *words], check=True, capture_output=True
        ).stdout
        return np.frombuffer(bytes_, np.float32).reshape(len(tokens), vocab)


def run(
    *words: str | Path, env: dict[str, str] | None = None, limits: Limits | None = None
) -> Result:
    """Run a program to its end; raises subprocess.TimeoutExpired where limits are given and it
    takes longer.
    """
    program = list(map(str, words))
    done = subprocess.run(
        limits.around(program) if limits else program,
        capture_output=True,
        text=True,
        env={**os.environ, **(env or {})},
        check=False,
        timeout=limits.seconds if limits else None,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def change_manifest(package: Path, *path: str | int, value: Any) -> None:
    """Set one value of a package's manifest."""
    file = package / "manifest.json"
    manifest = json.loads(file.read_text())
    place = manifest
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    file.write_text(json.dumps(manifest))


def build_client(factory: pytest.TempPathFactory) -> Client:
    """Bring the build up to date, once a test run."""
    library = library_path()
    assert library is not None, (
        "the native library was not built: reinstall with GPTOSS_SKIP_NATIVE unset"
    )
    once(factory, "cpp-client", _build_client)
    return Client(BUILD / "client" / "gptoss-generate", BUILD / "probe", library)


def _build_client() -> None:
    """Fetch ONNX Runtime of this Python's version unless it is there, and build."""
    version = ONNXRUNTIME / "VERSION_NUMBER"
    if not version.is_file() or version.read_text().strip() != ort.__version__:
        _must(
            ROOT / "clients" / "cpp" / "fetch_onnxruntime.sh",
            ONNXRUNTIME,
            env={"PYTHON": sys.executable},
        )
    _must(
        "cmake", "-S", ROOT / "tests" / "clients" / "cpp_probe", "-B", BUILD, "-DGPTOSS_NATIVE=OFF"
    )
    _must("cmake", "--build", BUILD, "--parallel", "2")


def build_chat() -> Path:
    """Fetch the tokenizer library of the chat example unless it is there, build the example, return
    the program.
    """
    folder = ROOT / "build" / "onnxruntime-genai"
    library = folder / "onnxruntime_genai" / "libonnxruntime-genai.so"
    if not library.is_file():
        _must(
            sys.executable,
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--dest",
            folder,
            "onnxruntime-genai==0.18.0",
        )
        (wheel,) = folder.glob("*.whl")
        _must(sys.executable, "-m", "zipfile", "-e", wheel, folder)
    build, source = (
        ROOT / "build" / "clients" / "cpp_chat",
        ROOT / "clients" / "cpp" / "examples" / "chat",
    )
    _must("cmake", "-S", source, "-B", build, "-DGPTOSS_NATIVE=OFF", f"-DGENAI_LIBRARY={library}")
    _must("cmake", "--build", build, "--parallel", "2", "--target", "gptoss-chat")
    return build / "gptoss-chat"


def _must(*words: str | Path, env: dict[str, str] | None = None) -> None:
    result = run(*words, env=env)
    assert result.code == 0, (
        f"{words[0]}: exit {result.code}\n{result.out[-4000:]}\n{result.err[-4000:]}"
    )


def _no_constant(name: str) -> None:
    raise ValueError(f"found {name}, which JSON does not have")
