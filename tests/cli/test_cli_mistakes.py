"""Checkpoints that are spoilt, and places that cannot be written to: code 2, one line that helps,
and nothing left behind.
"""

import errno
import json
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pytest

from support.desk import Desk, Words


def _rename(old: str, new: str) -> Callable[[dict[str, Any]], None]:
    return lambda header: header.update({new: header.pop(old)})


def _retype(name: str, dtype: str) -> Callable[[dict[str, Any]], None]:
    return lambda header: header[name].update(dtype=dtype)


def _shard(desk: Desk) -> None:
    """Turn the checkpoint into one of two shards, the second of which is missing."""
    first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    desk.weights.rename(desk.checkpoint / first)
    index = {"metadata": {}, "weight_map": {"model.norm.weight": first, "lm_head.weight": second}}
    (desk.checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))


CHECKPOINTS: dict[str, tuple[Callable[[Desk], object], Words]] = {
    "another model": (
        lambda desk: desk.edit_config(model_type="t5"),
        ("model_type: found 't5'", "'gpt_oss'"),
    ),
    "a wrong key": (
        lambda desk: desk.edit_config(head_dim=0),
        "head_dim: found 0, expected an integer",
    ),
    "several wrong keys": (
        lambda desk: desk.edit_config(num_attention_heads=7, rms_norm_eps="small"),
        ("num_attention_heads", "rms_norm_eps: found 'small'"),
    ),
    "config that is no JSON": (
        lambda desk: (desk.checkpoint / "config.json").write_text("{"),
        "config.json",
    ),
    "no config": (lambda desk: (desk.checkpoint / "config.json").unlink(), "config.json"),
    "cut off weights": (
        lambda desk: os.truncate(desk.weights, 9000),
        ("model.safetensors", "cut off", "download"),
    ),
    "weights that are none": (
        lambda desk: desk.weights.write_text("hello"),
        "not a safetensors file",
    ),
    "a git-lfs pointer": (
        lambda desk: desk.weights.write_text("version https://git-lfs.github.com/spec/v1\n"),
        "git lfs pull",
    ),
    "a missing shard": (_shard, ("model-00002-of-00002.safetensors", "no such file", "incomplete")),
    "no weights": (lambda desk: desk.weights.unlink(), "expected model.safetensors"),
    "a wrong dtype": (
        lambda desk: desk.edit_header(_retype("model.norm.weight", "I16")),
        ("model.norm.weight: found dtype I16", "expected BF16"),
    ),
    "an unexpected tensor": (
        lambda desk: desk.edit_header(_rename("model.norm.weight", "model.norm.wait")),
        ("model.norm.weight: missing", "model.norm.wait: unexpected"),
    ),
    "a file instead of a folder": (
        lambda desk: (
            desk.checkpoint.rename(desk.folder / "moved"),
            desk.checkpoint.write_text(""),
        ),
        "found a file, expected the checkpoint's folder",
    ),
}


@pytest.mark.parametrize(("spoil", "words"), CHECKPOINTS.values(), ids=CHECKPOINTS.keys())
def test_export_of_a_checkpoint_that_is(
    desk: Desk, spoil: Callable[[Desk], object], words: Words
) -> None:
    spoil(desk)
    desk.refused_export(words)


def test_export_of_a_folder_that_is_not_there(desk: Desk) -> None:
    desk.refused(("nowhere", "no such folder"), "export", "./nowhere", "--output", desk.output)


def test_export_of_a_hub_id_that_is_not_in_the_cache(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(desk.folder / "cache"))
    words = ("not in the Hugging Face cache", "--download", "hf download openai/gpt-oss-20b")
    desk.refused(words, "export", "openai/gpt-oss-20b", "--output", desk.output)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_export_of_unreadable_weights(desk: Desk) -> None:
    desk.weights.chmod(0)
    desk.refused_export("Permission denied")


def test_export_over_a_package_needs_force(desk: Desk) -> None:
    desk.refused("--force", "export", desk.checkpoint, "--output", desk.package)


@pytest.mark.parametrize("force", [(), ("--force",)])
def test_export_over_anything_else_is_refused(desk: Desk, force: tuple[str, ...]) -> None:
    words = ("exists and is not a package", "choose another")
    desk.refused(words, "export", desk.checkpoint, "--output", desk.checkpoint, *force)
    desk.refused(words, "export", desk.checkpoint, "--output", desk.weights, *force)


def test_export_below_a_file(desk: Desk) -> None:
    desk.refused(
        "is a file, so no folder can be made below it",
        "export",
        desk.checkpoint,
        "--output",
        desk.weights / "package",
    )


ACROSS = ("cannot hard-link", "file system", "--weights reference", "--weights copy")


def test_export_links_where_the_file_system_has_none(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", link)
    desk.refused_export(ACROSS)


def test_export_links_across_file_systems(desk: Desk) -> None:
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or memory.stat().st_dev == desk.folder.stat().st_dev:
        pytest.skip("/dev/shm is no other file system here")
    with TemporaryDirectory(dir=memory) as other:
        desk.refused(ACROSS, "export", desk.checkpoint, "--output", Path(other) / "package")
        assert not list(Path(other).iterdir())


@contextmanager
def _largest_file(size: int) -> Iterator[None]:
    """Let no write of this process go beyond `size` bytes of a file, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_writing_to_a_disk_that_fills_up(desk: Desk) -> None:
    with _largest_file(4096):
        desk.refused_export(("output: cannot write the package", "File too large"))
        desk.refused("File too large", "make-checkpoint", "tiny", desk.folder / "made")


def test_writing_to_a_disk_that_is_too_small(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=7))
    desk.refused_export(("copying the weights needs", "--weights link"), "--weights", "copy")
    desk.refused(("needs", "--sparse"), "make-checkpoint", "20b", desk.folder / "made")


MADE: dict[str, tuple[tuple[object, ...], Words]] = {
    "of an unknown model": (
        ("7b",),
        ("7b: no such model", "expected one of tiny, tiny-gpt-oss", "gpt-oss-20b"),
    ),
    "of an odd head": (
        ("tiny", "--layout", "hf-bf16", "--layers", 2, "--hidden-size", 40, "--head-dim", 15),
        "head_dim: found 15",
    ),
    "of too many layers": (("20b", "--layers", 25), "gpt-oss-20b has 1 to 24"),
    "of a real model with a shape": (
        ("120b", "--heads", 8, "--tied"),
        "--heads, --tied/--untied: only for tiny",
    ),
    "of heads that do not divide": (
        ("tiny", "--heads", 7),
        ("num_attention_heads: found 7", "multiple of"),
    ),
    "of more experts a token than there are": (
        ("tiny", "--top-k", 9),
        "num_experts_per_tok: found 9",
    ),
    "of a width MXFP4 cannot hold": (("tiny", "--hidden-size", 48), "a multiple of 32"),
    "of no layers": (("tiny", "--layers", 0), "0 is not in the range"),
}


@pytest.mark.parametrize(("arguments", "words"), MADE.values(), ids=MADE.keys())
def test_a_made_checkpoint(desk: Desk, arguments: tuple[object, ...], words: Words) -> None:
    model, *more = arguments
    desk.refused(words, "make-checkpoint", model, desk.folder / "made", *more)


def test_a_made_checkpoint_over_something(desk: Desk) -> None:
    desk.refused("found a folder with content", "make-checkpoint", "tiny", desk.package)


def test_missing_arguments(desk: Desk) -> None:
    desk.refused("Missing option '--output'", "export", desk.checkpoint)
    desk.refused("Missing argument 'PACKAGE|CHECKPOINT'", "inspect")
    desk.refused("No such command 'exprot'", "exprot")
