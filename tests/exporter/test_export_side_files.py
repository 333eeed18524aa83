"""Tokenizer and generation settings of a package: copied as they are, completed where there are
none, bounded.
"""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from gptoss_onnx.added_tokens import TOKENIZER_LIMIT, added_tokens, harmony_stops
from gptoss_onnx.errors import CheckpointError
from gptoss_onnx.exporter import export
from gptoss_onnx.runtime import Tokenizer, open_package
from support.checkpoints import edit_json
from support.tiny_package import VOCAB, clone, tiny_checkpoint

STOPS = {"<|endoftext|>": 300, "<|return|>": 301, "<|call|>": 302}
HARMONY = STOPS | {"<|start|>": 303, "<|end|>": 304, "<|message|>": 305, "<|channel|>": 306}


@pytest.fixture
def folder(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clone(tiny_checkpoint(tmp_path_factory), tmp_path / "checkpoint")


def add_tokens(folder: Path, tokens: dict[str, int]) -> None:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False) | {
        "special": True
    }
    entries = [{"id": number, "content": name, **flags} for name, number in tokens.items()]
    edit_json(folder / "tokenizer.json", lambda document: document.update(added_tokens=entries))


def exported(folder: Path, caplog: pytest.LogCaptureFixture) -> tuple[dict[str, Any], list[str]]:
    """Export; returns the package's generation settings and the warnings."""
    caplog.clear()
    export(folder, folder.parent / "package", force=True)
    warnings = [
        record.getMessage() for record in caplog.records if record.levelno == logging.WARNING
    ]
    assert all(warning.isprintable() for warning in warnings)
    settings: dict[str, Any] = json.loads(
        (folder.parent / "package" / "generation_config.json").read_text()
    )
    return settings, warnings


def test_harmony_ends_a_text_where_there_are_no_settings(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """config.json names one end token of three, and a call of a tool would be run past."""
    add_tokens(folder, HARMONY)
    edit_json(
        folder / "config.json", lambda document: document.update(eos_token_id=301, pad_token_id=300)
    )
    settings, warnings = exported(folder, caplog)
    assert settings == {"eos_token_id": [301, 300, 302], "pad_token_id": 300}
    assert len(warnings) == 1
    assert "no generation_config.json" in warnings[0]
    assert "<|return|> (301), <|endoftext|> (300), <|call|> (302)" in warnings[0]


def test_settings_are_copied_and_what_they_lack_is_told(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    add_tokens(folder, HARMONY)
    text = '{"eos_token_id": [301, 300], "temperature": 0.7}'
    (folder / "generation_config.json").write_text(text)
    _, warnings = exported(folder, caplog)
    assert (folder.parent / "package" / "generation_config.json").read_text() == text
    assert len(warnings) == 1
    assert "eos_token_id lacks <|call|> (302): a generation runs past it" in warnings[0]


def test_complete_settings_need_no_warning(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As published: return, endoftext, call."""
    add_tokens(folder, HARMONY)
    (folder / "generation_config.json").write_text(
        '{"eos_token_id": [301, 300, 302], "pad_token_id": 300}'
    )
    assert exported(folder, caplog)[1] == []


def test_special_tokens_none_of_which_ends_a_text(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    add_tokens(folder, {"<|endoftext|>": 300})
    settings, warnings = exported(folder, caplog)
    assert settings == {}
    assert len(warnings) == 1
    assert "nothing ends a text" in warnings[0]
    edit_json(folder / "config.json", lambda document: document.update(eos_token_id=300))
    assert exported(folder, caplog) == ({"eos_token_id": 300}, [])


def test_settings_without_an_end_leave_config_jsons(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The file is copied as it is, and the manifest says what config.json does."""
    add_tokens(folder, {"<|endoftext|>": 300})
    (folder / "generation_config.json").write_text('{"temperature": 0.7}')
    edit_json(folder / "config.json", lambda document: document.update(eos_token_id=300))
    assert exported(folder, caplog) == ({"temperature": 0.7}, [])
    assert open_package(folder.parent / "package").eos_tokens == (300,)


def test_the_end_of_a_text_is_no_end_of_an_answer(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Not every list names it, and a chat does not need it."""
    add_tokens(folder, HARMONY)
    (folder / "generation_config.json").write_text('{"eos_token_id": [301, 302]}')
    assert exported(folder, caplog)[1] == []


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (
            "generation_config.json",
            b'{"eos_token_id": "end"}',
            "expected a token id or a list of them",
        ),
        ("generation_config.json", b'{"eos_token_id": [1, true]}', "expected a token id"),
        ("generation_config.json", b'{"eos_token_id": 1' + b"0" * 30 + b"}", "expected a token id"),
        ("generation_config.json", b'{"temperature": NaN}', "NaN"),
        ("generation_config.json", b"[]", "expected a JSON object"),
        ("generation_config.json", b"[" * 100_000, "nested"),
        ("tokenizer.json", b"[" * 100_000, "nested"),
        ("tokenizer.json", b"{", "not JSON"),
        ("tokenizer.json", b"[]", "not a tokenizer"),
        ("tokenizer.json", b"{}", "not a tokenizer"),
        ("tokenizer.json", b'{"added_tokens": {"a": 1}}', "expected added_tokens"),
        (
            "tokenizer.json",
            b'{"added_tokens": [{"content": "a", "id": 1.5}]}',
            "expected added_tokens",
        ),
    ],
)
def test_settings_and_tokenizers_that_are_none(
    folder: Path, name: str, content: bytes, words: str
) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=name) as caught:
        export(folder, folder.parent / "package")
    assert words in str(caught.value)
    assert str(caught.value).isprintable()


def test_files_have_a_largest_size(folder: Path) -> None:
    for name in ("chat_template.jinja", "tokenizer.json"):
        with (folder / name).open("ab") as file:
            file.truncate(TOKENIZER_LIMIT + 1)
        with pytest.raises(CheckpointError, match=rf"{name}: found more than \d+ bytes"):
            export(folder, folder.parent / "package")
        (folder / name).unlink()


def test_stops_beyond_the_vocabulary_are_refused(folder: Path) -> None:
    add_tokens(folder, HARMONY | {"<|call|>": VOCAB})
    with pytest.raises(
        CheckpointError, match=rf"found id {VOCAB} for <\|call\|>, expected 0 to {VOCAB - 1}"
    ):
        export(folder, folder.parent / "package")


def test_only_harmony_tokenizers_have_harmony_stops() -> None:
    text = json.dumps(
        {"added_tokens": [{"id": number, "content": name} for name, number in HARMONY.items()]}
    ).encode()
    tokens = added_tokens(text, "tokenizer.json", CheckpointError)
    assert tokens == HARMONY
    assert harmony_stops(tokens) == {"<|return|>": 301, "<|endoftext|>": 300, "<|call|>": 302}
    assert harmony_stops(STOPS) == {}
    assert added_tokens(b"{}", "tokenizer.json", CheckpointError) == {}


def _replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def _sequence(key: str, steps: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "Sequence", key: steps}


PADDING = {
    "strategy": {"Fixed": 10**9},
    "direction": "Right",
    "pad_to_multiple_of": None,
    "pad_id": 0,
    "pad_type_id": 0,
    "pad_token": "x",
}
TWICE = {
    "type": "TemplateProcessing",
    "single": [{"Sequence": {"id": "A", "type_id": 0}}] * 2,
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}],
    "special_tokens": {},
}
BOMBS: dict[str, dict[str, Any]] = {
    "two letters for one, forty times": _sequence(
        "normalizers", [_replace({"String": "a"}, "aa")] * 40
    ),
    "a megabyte for a letter": _replace({"String": "a"}, "a" * 10**6),
    "a thousand letters before each": _replace({"Regex": "(?=.)"}, "x" * 1000),
    "a megabyte before a text": {"type": "Prepend", "prepend": "x" * 10**6},
}


@pytest.mark.parametrize("normalizer", BOMBS.values(), ids=BOMBS.keys())
def test_a_tokenizer_does_not_make_gigabytes_of_a_line(
    folder: Path, normalizer: dict[str, Any]
) -> None:
    edit_json(folder / "tokenizer.json", lambda document: document.update(normalizer=normalizer))
    with pytest.raises(CheckpointError, match="it makes more than 100 letters or tokens of one"):
        export(folder, folder.parent / "package")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("post_processor", _sequence("processors", [TWICE] * 40)),
        ("decoder", _sequence("decoders", [_replace({"String": "a"}, "aa")] * 40)),
    ],
)
def test_nor_do_its_other_parts(folder: Path, key: str, value: dict[str, Any]) -> None:
    edit_json(folder / "tokenizer.json", lambda document: document.update({key: value}))
    with pytest.raises(CheckpointError, match="it makes more than 100 letters or tokens of one"):
        export(folder, folder.parent / "package")


def test_padding_and_cutting_are_settings_of_a_training(folder: Path) -> None:
    export(folder, folder.parent / "plain")
    cut = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    edit_json(
        folder / "tokenizer.json", lambda document: document.update(padding=PADDING, truncation=cut)
    )
    export(folder, folder.parent / "package")
    plain, other = (
        folder.parent / name / "golden" / "golden.json" for name in ("plain", "package")
    )
    assert plain.read_text() == other.read_text()
    assert len(Tokenizer.open(folder.parent / "package").encode("hello")) == 5


def test_what_most_tokenizers_have_is_taken(folder: Path) -> None:
    steps = [{"type": "Prepend", "prepend": "_"}, _replace({"String": " "}, "_"), {"type": "NFKC"}]
    edit_json(
        folder / "tokenizer.json",
        lambda document: document.update(normalizer=_sequence("normalizers", steps)),
    )
    export(folder, folder.parent / "package")


def test_a_tokenizer_that_panics_is_one_line(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A pattern that matches nothing makes the Rust library panic, with a trace of forty lines on
    stderr.
    """
    edit_json(
        folder / "tokenizer.json",
        lambda document: document.update(normalizer=_replace({"Regex": "x*"}, "aa")),
    )
    with pytest.raises(
        CheckpointError, match=r"tokenizer\.json: not a tokenizer \(.*\); download it again"
    ):
        export(folder, folder.parent / "package")
    assert capfd.readouterr().err == ""
