"""Every mistake a user is likely to make ends with code 2, one line that helps, and nothing left
behind.
"""

import errno
import json
import os
import resource
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import onnxruntime  # type: ignore[import-untyped]  # ships no stubs
import pytest
from click.testing import CliRunner

from gptoss_onnx.cli import main
from support.tiny_package import LONGEST, VOCAB, clone, tiny_checkpoint, tiny_package

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
        return self.refused(words, "export", self.checkpoint, "--output", self.output, *more)

    def refused_generate(self, words: Words, *more: object) -> str:
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
        path = self.package / "manifest.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    def _everything(self) -> list[str]:
        return sorted(str(path) for path in self.folder.rglob("*"))


@pytest.fixture
def desk(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return Desk(tmp_path, tmp_path_factory)


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
    "a missing key": (
        lambda desk: desk.edit_config(head_dim=None),
        "head_dim: missing, expected an integer",
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


PACKAGES: dict[str, tuple[Callable[[Desk], object], Words]] = {
    "not there": (lambda desk: desk.package.rename(desk.folder / "moved"), "not a folder"),
    "half-written": (
        lambda desk: (desk.package / "manifest.json").unlink(),
        "it has no manifest.json",
    ),
    "a newer format's": (
        lambda desk: desk.edit_manifest(format_version=3),
        ("format_version is 3", "upgrade gptoss-onnx"),
    ),
    "another tool's": (
        lambda desk: desk.edit_manifest(format="other"),
        "not a gptoss-onnx manifest",
    ),
    "malformed": (lambda desk: desk.edit_manifest(weights=3), "malformed"),
}
FILES: dict[str, tuple[Callable[[Desk], object], Words]] = {
    "without its graph": (
        lambda desk: (desk.package / "model.onnx").unlink(),
        ("model.onnx", "export"),
    ),
    "with a damaged graph": (
        lambda desk: (desk.package / "model.onnx").write_text("?"),
        "not an ONNX model",
    ),
    "without its weights": (
        lambda desk: (desk.package / "model.safetensors").unlink(),
        ("model.safetensors", "No such file"),
    ),
    "of weights that grew": (
        lambda desk: os.truncate(desk.package / "model.safetensors", 10**6),
        ("model.safetensors: changed", "bytes", "export again"),
    ),
    "of weights with another header": (
        lambda desk: _replace(
            desk.package / "model.safetensors", b"model.norm.weight", b"model.norm.waits"
        ),
        ("model.safetensors: changed", "safetensors header"),
    ),
    "of weights touched since": (
        lambda desk: os.utime(desk.package / "model.safetensors"),
        ("model.safetensors: changed", "modification time"),
    ),
    "with a damaged tokenizer": (
        lambda desk: (desk.package / "tokenizer.json").write_text("{}"),
        "not a tokenizer",
    ),
}


def _replace(path: Path, old: bytes, new: bytes) -> None:
    path.write_bytes(path.read_bytes().replace(old, new[: len(old)].ljust(len(old), b"_"), 1))


@pytest.mark.parametrize("command", ["inspect", "generate", "validate"])
@pytest.mark.parametrize(("spoil", "words"), PACKAGES.values(), ids=PACKAGES.keys())
def test_a_package_that_is(
    desk: Desk, command: str, spoil: Callable[[Desk], object], words: Words
) -> None:
    spoil(desk)
    more = {"generate": ("--prompt", "x"), "validate": ("--reference", desk.checkpoint)}
    desk.refused(words, command, desk.package, *more.get(command, ()))


@pytest.mark.parametrize(("spoil", "words"), FILES.values(), ids=FILES.keys())
def test_generate_with_a_package(desk: Desk, spoil: Callable[[Desk], object], words: Words) -> None:
    spoil(desk)
    desk.refused_generate(words)


def test_the_work_of_an_interrupted_export_is_no_package(desk: Desk) -> None:
    unfinished = desk.package.rename(desk.folder / ".output.x.partial")
    desk.refused("interrupted export", "inspect", unfinished)


PROMPTS: dict[str, tuple[tuple[object, ...], Words]] = {
    "empty": (("--prompt", ""), "--prompt: found an empty text"),
    "of no tokens": (("--prompt-tokens", ""), "expected token ids separated by commas"),
    "of words for tokens": (("--prompt-tokens", "1,two"), "found 'two', expected token ids"),
    "of a negative token": (("--prompt-tokens=-1",), "found '-1'"),
    "beyond the vocabulary": (
        ("--prompt-tokens", f"1,{VOCAB}"),
        f"token 1 is {VOCAB}, expected 0 to {VOCAB - 1}",
    ),
    "of a huge token": (("--prompt-tokens", "9" * 30), "expected token ids"),
    "too long": (
        ("--prompt", "x" * (LONGEST + 1)),
        (f"found {LONGEST + 1} tokens", f"at most {LONGEST}"),
    ),
    "given twice": (
        ("--prompt", "x", "--prompt-tokens", "1"),
        "found --prompt and --prompt-tokens",
    ),
    "of bytes that are no text": (("--prompt", "\udcff"), "lone surrogate"),
    "for a chat of tokens": (("--prompt-tokens", "1", "--chat"), "--chat"),
    "with a system but no chat": (("--prompt", "x", "--system", "y"), "add --chat"),
}


@pytest.mark.parametrize(("arguments", "words"), PROMPTS.values(), ids=PROMPTS.keys())
def test_a_prompt(desk: Desk, arguments: tuple[object, ...], words: Words) -> None:
    desk.refused(words, "generate", desk.package, *arguments)


def test_no_prompt(desk: Desk) -> None:
    desk.refused("found neither", "generate", desk.package)


def test_text_without_a_tokenizer(desk: Desk) -> None:
    (desk.package / "tokenizer.json").unlink()
    words = ("found no tokenizer.json", "--prompt-tokens")
    desk.refused_generate(words, "--prompt", "x")
    desk.refused_generate("found no tokenizer.json", "--stop", "x")


def test_chat_without_a_template(desk: Desk) -> None:
    (desk.package / "chat_template.jinja").unlink()
    desk.refused_generate(("found no chat template", "--prompt"), "--prompt", "x", "--chat")


SETTINGS: dict[str, Words] = {
    "--temperature=-1": "temperature: found -1.0",
    "--temperature=nan": "temperature: found nan",
    "--temperature=hot": "'hot' is not a valid float",
    "--top-k=-2": "top_k: found -2",
    "--top-p=0": "top_p: found 0.0, expected above 0, at most 1",
    "--top-p=1.5": "top_p: found 1.5",
    "--min-p=2": "min_p: found 2.0",
    "--repetition-penalty=0": "repetition_penalty: found 0.0",
    "--seed=-1": "seed: found -1",
    "--stop=": "stop: found ''",
    "--max-new-tokens=0": "'--max-new-tokens': 0 is not in the range",
    "--threads=0": "'--threads': 0 is not in the range",
    "--kernels=fast": "'--kernels': 'fast' is not one of",
    "--provider=tpu": "'--provider': 'tpu' is not one of",
    "--colour": "No such option '--colour'",
}


@pytest.mark.parametrize(("setting", "words"), SETTINGS.items(), ids=SETTINGS.keys())
def test_a_setting(desk: Desk, setting: str, words: Words) -> None:
    desk.refused_generate(words, setting)


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(),
    reason="this ONNX Runtime has CUDA",
)
def test_cuda_where_there_is_none(desk: Desk) -> None:
    desk.refused_generate(("provider cuda", "[gpu]", "pip install"), "--provider", "cuda")


def test_validate_against_another_model(desk: Desk) -> None:
    desk.edit_config(rope_theta=10000.0)
    desk.refused(
        ("was not exported from", "rope_theta"),
        "validate",
        desk.package,
        "--reference",
        desk.checkpoint,
    )


def test_validate_writes_no_golden_vectors_over_others(desk: Desk) -> None:
    command = ("validate", desk.package, "--reference", desk.checkpoint, "--write-golden")
    desk.refused("golden: exists", *command)


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
    desk.refused("Missing argument 'PACKAGE'", "inspect")
    desk.refused("No such command 'exprot'", "exprot")
