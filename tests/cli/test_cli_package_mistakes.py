"""Packages that are spoilt, and prompts and settings that are wrong: code 2, one line that helps,
and nothing left behind.
"""

import os
from collections.abc import Callable
from pathlib import Path

import onnxruntime  # type: ignore[import-untyped]  # ships no stubs
import pytest

from support.desk import Desk, Words
from support.tiny_package import LONGEST, VOCAB

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
