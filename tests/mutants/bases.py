"""Bases: a checkpoint and its healthy packages, from which mutants are made."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from gptoss_onnx.exporter import export
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document
from support.made_once import made_once

Target = Literal["portable", "ort"]
# Small enough that a mutant is judged in seconds, and of a vocabulary that a few drawn sequences do
# not exhaust.
SMALL = {"vocab_size": 2048, "max_position_embeddings": 1024}
SEED = 5


@dataclass(frozen=True)
class Bases:
    """A checkpoint, and its packages by target."""

    checkpoint: Path
    folder: Path

    @classmethod
    @contextmanager
    def small(cls, folder: Path) -> Iterator[Self]:
        """Make a small random checkpoint in `folder`, and its packages."""
        checkpoint = folder / "checkpoint"
        if not checkpoint.exists():
            make_checkpoint(checkpoint, tiny_document(**SMALL), seed=SEED)
        with cls.of(checkpoint, folder) as bases:
            yield bases

    @classmethod
    @contextmanager
    def of(cls, checkpoint: Path, folder: Path) -> Iterator[Self]:
        """Make the packages of a checkpoint in `folder`; inside, further exports of it are
        cheap.
        """
        bases = cls(checkpoint, folder)
        with made_once(folder / "made-once"):
            for target in ("portable", "ort"):
                if not bases.package(target).exists():
                    export(checkpoint, bases.package(target), target=target, weights="copy")
            yield bases

    def package(self, target: Target) -> Path:
        """Return the healthy package of a target."""
        return self.folder / f"healthy-{target}"
