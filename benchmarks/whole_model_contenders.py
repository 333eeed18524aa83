"""Who takes part in whole_model.py: what each one runs, how that is made, how it is started."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from whole_model_times import PEER, STOCK
from worker import Worker

HERE = Path(__file__).resolve().parent
PEERS = HERE.parent / "build" / "peers"
PYTHON = PEERS / "venv" / "bin" / "python"
TOOL = Path(sys.executable).with_name("gptoss-onnx")
CACHE = ("--kv-dtype", "bfloat16")
# The options of each package of ours.
EXPORTS = {
    "checkpoint": ("--dense", "checkpoint", *CACHE),
    "packed": ("--dense", "packed", *CACHE),
    "int8": ("--dense", "int8", *CACHE),
    "ort": ("--target", "ort"),
}
# Those of each package of the model builder that comes with onnxruntime-genai.
BUILDS = {"genai": (), "genai-4": ("--accuracy-level", "4")}


@dataclass(frozen=True)
class Contender:
    """One process: what it is called, the model it runs, and how it is started."""

    name: str
    model: Path
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)

    def start(self) -> Worker:
        """Start it and wait until its model is open."""
        return Worker(self.command, os.environ | self.environment)


def contenders_in(folder: Path, layers: int, threads: int, genai: bool) -> list[Contender]:
    """List what is compared: llama.cpp first, then others, then ours."""

    def package(kind: str) -> Path:
        return folder / f"package-{layers}-{kind}"

    def ours(name: str, kind: str, arithmetic: str) -> Contender:
        words = (str(HERE / "gptoss_worker.py"), str(package(kind)), arithmetic, str(threads))
        return Contender(name, package(kind), (sys.executable, *words))

    def by_genai(name: str, kind: str) -> Contender:
        words = (str(HERE / "genai_worker.py"), str(package(kind)), str(threads))
        return Contender(name, package(kind), (str(PYTHON), *words))

    found = [_llama(folder / f"model-{layers}.gguf", threads), ours(STOCK, "ort", "stock")]
    if genai:
        found.append(by_genai("the same in onnxruntime-genai", "ort"))
        found.append(by_genai("onnxruntime-genai's own int4", "genai"))
        found.append(by_genai("onnxruntime-genai's own int4, level 4", "genai-4"))
    labels = (("checkpoint", "bf16 dense"), ("packed", "packed dense"), ("int8", "int8 dense"))
    for dense, label in labels:
        for activations in ("exact", "bf16", "int8"):
            found.append(ours(f"{label}, {activations}", dense, activations))
    return found


def _llama(model: Path, threads: int) -> Contender:
    environment = {
        "LLAMA_CPP_LIB_PATH": str(PEERS / "llama.cpp" / "bin"),
        "PYTHONPATH": str(PEERS / "bindings"),
    }
    command = (str(PYTHON), str(HERE / "llama_worker.py"), str(model), str(threads))
    return Contender(PEER, model, command, environment)


def prepare(model: Path, folder: Path, layers: int) -> None:
    """Write the checkpoint and a contender's model into `folder`, unless they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / f"checkpoint-{layers}"
    if not checkpoint.exists():
        _run(TOOL, "make-checkpoint", "20b", checkpoint, "--layers", layers)
    if model.exists():
        return
    if model.suffix == ".gguf":
        partial = model.with_suffix(".partial")
        _run(PYTHON, HERE / "random_gguf.py", partial, "--layers", layers)
        partial.rename(model)
        return
    kind = model.name.split("-", 2)[2]
    if kind in EXPORTS:
        export_once(checkpoint, model, *EXPORTS[kind])
    else:
        (builder,) = PEERS.glob("venv/lib/*/site-packages/onnxruntime_genai/models")
        program = (sys.executable, HERE / "genai_builder.py")
        _run(*program, builder, checkpoint, model, *BUILDS[kind])


def export_once(checkpoint: Path, package: Path, *options: str) -> None:
    """Export a checkpoint with these options, unless the package is there."""
    if not package.exists():
        _run(TOOL, "export", checkpoint, "--output", package, *options)


def new_bytes(model: Path) -> int:
    """Return the bytes that a model takes on disk beside the checkpoint: links take none."""
    files = [file for file in model.rglob("*") if file.is_file()] if model.is_dir() else [model]
    sizes = [file.stat() for file in files]
    return sum(size.st_size for size in sizes if size.st_nlink == 1)


def _run(*words: str | Path | int) -> None:
    subprocess.run([str(word) for word in words], check=True)
