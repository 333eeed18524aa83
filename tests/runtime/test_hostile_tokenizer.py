"""Tokenizers of strangers: whatever they do, one line of ours, and no file is read without end."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gptoss_onnx.errors import InputError, PackageError
from gptoss_onnx.runtime import Tokenizer
from support.harmony_tokenizer import write_harmony_tokenizer

USER = [{"role": "user", "content": "x"}]
BPE: dict[str, Any] = {
    "type": "BPE",
    "dropout": None,
    "unk_token": None,
    "continuing_subword_prefix": None,
    "end_of_word_suffix": None,
    "fuse_unk": False,
    "vocab": {"a": 0, "b": 1, "ab": 2},
    "merges": ["a b"],
}
PANICS: dict[str, dict[str, Any]] = {
    "while it is read": {"model": BPE | {"continuing_subword_prefix": "abcdef"}},
    "in its normalizer": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
    "at work": {"pre_tokenizer": {"type": "FixedLength", "length": 0}},
}


DOUBLE = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
GROWING: dict[str, dict[str, Any]] = {
    "normalizer": {"normalizer": {"type": "Sequence", "normalizers": [DOUBLE] * 40}},
    "decoder": {"decoder": {"type": "Sequence", "decoders": [DOUBLE] * 40}},
    "one rule": {
        "normalizer": {"type": "Replace", "pattern": {"Regex": ""}, "content": "a" * 10**6}
    },
}


def write_tokenizer(folder: Path, **changes: Any) -> None:
    parts = dict.fromkeys(
        ("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder")
    )
    document = {"version": "1.0", **parts, "added_tokens": [], "model": BPE} | changes
    (folder / "tokenizer.json").write_text(json.dumps(document))


@pytest.mark.parametrize("name", GROWING)
def test_a_tokenizer_whose_texts_grow_is_refused(tmp_path: Path, name: str) -> None:
    write_tokenizer(tmp_path, **GROWING[name])
    with pytest.raises(PackageError, match=r"makes more than 100 letters or tokens of one"):
        Tokenizer.open(tmp_path)


def test_a_tokenizer_does_not_pad(tmp_path: Path) -> None:
    padding = {"strategy": {"Fixed": 10**13}, "direction": "Right", "pad_to_multiple_of": None}
    padding |= {"pad_id": 0, "pad_type_id": 0, "pad_token": "a"}
    write_tokenizer(tmp_path, padding=padding, normalizer=DOUBLE)
    assert Tokenizer.open(tmp_path).encode("ab") == [0, 2]


def test_a_panic_at_one_text_is_one_line(tmp_path: Path) -> None:
    """Onig gives up an expression that takes too long, by a panic; which text it is no probe can
    know.
    """
    endless = {
        "type": "Split",
        "pattern": {"Regex": "(a+)+$"},
        "behavior": "Isolated",
        "invert": False,
    }
    write_tokenizer(tmp_path, pre_tokenizer=endless)
    for method in ("encode", "encode_plain"):
        # In a process of its own: where other threads run, what they say meanwhile must not be held
        # back.
        code = f"""
import sys
from gptoss_onnx.errors import PackageError
from gptoss_onnx.runtime import Tokenizer
tokenizer = Tokenizer.open(sys.argv[1])
try:
    tokenizer.{method}("a" * 40 + "b")
except PackageError as error:
    print(error)
"""
        done = subprocess.run(
            [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True
        )
        assert done.stderr == ""
        assert re.fullmatch(
            r"\S*tokenizer\.json: cannot encode this \(.*retry-limit.*\); export.*\n", done.stdout
        )


@pytest.mark.parametrize("name", PANICS)
def test_a_tokenizer_that_panics_is_one_line(
    tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    write_tokenizer(tmp_path, **PANICS[name])
    with pytest.raises(
        PackageError,
        match=r"tokenizer\.json: not a tokenizer \([^\n]+\); export the package again$",
    ):
        Tokenizer.open(tmp_path)
    assert capfd.readouterr().err == ""


def test_a_panic_on_one_text_is_ours_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = Tokenizer.open(write_harmony_tokenizer(tmp_path))

    class PanicException(BaseException):
        """What pyo3 raises, by name: its class cannot be imported."""

    class Panicking:
        def __getattr__(self, name: str) -> Any:
            raise PanicException("index out\nof range")

    tokenizer.special_tokens  # noqa: B018 - read before the backend goes
    monkeypatch.setattr(tokenizer, "_backend", Panicking())
    for call in (tokenizer.encode, tokenizer.encode_plain, lambda _: tokenizer.decode([1])):
        with pytest.raises(
            PackageError, match=r"tokenizer\.json: cannot \w+ this \(index out of range\); export"
        ):
            call("x")


def test_an_interrupt_is_no_panic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = Tokenizer.open(write_harmony_tokenizer(tmp_path))

    class Interrupted:
        def encode_batch_fast(self, *_: Any, **__: Any) -> Any:
            raise KeyboardInterrupt

    monkeypatch.setattr(tokenizer, "_backend", Interrupted())
    with pytest.raises(KeyboardInterrupt):
        tokenizer.encode("x")


def test_token_ids_are_checked(tmp_path: Path) -> None:
    tokenizer = Tokenizer.open(write_harmony_tokenizer(tmp_path))
    for wrong in (-1, 2**40, "a", 1.5, None):
        with pytest.raises(InputError, match=r"token 1: found .*, expected a token id"):
            tokenizer.decode([1, wrong])  # type: ignore[list-item]  # wrong on purpose
    with pytest.raises(InputError, match="text: found int, expected a text"):
        tokenizer.encode(3)  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"])
def test_files_that_never_end_are_refused(tmp_path: Path, file: str) -> None:
    write_harmony_tokenizer(tmp_path)
    (tmp_path / file).unlink()
    os.mkfifo(tmp_path / file)
    with pytest.raises(PackageError, match=r"something else than a file|expected a regular file"):
        Tokenizer.open(tmp_path).encode_chat(USER)
    (tmp_path / file).unlink()
    with (tmp_path / file).open("wb") as sparse:
        sparse.truncate(100_000_000)
    with pytest.raises(PackageError, match=r"found more than \d+ bytes"):
        Tokenizer.open(tmp_path).encode_chat(USER)
    (tmp_path / file).unlink()
    (tmp_path / file).write_bytes(b"[" * 100_000 if file.endswith("json") else b"\xff\xff")
    with pytest.raises(PackageError, match=r"^[^\n]+$"):
        Tokenizer.open(tmp_path).encode_chat(USER)
