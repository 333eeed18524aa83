"""The tokenizer.json that is made of a GGUF file's tokens encodes as the original one does."""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from gptoss_onnx.checkpoint.folder import CheckpointFolder
from gptoss_onnx.checkpoint.gguf.header import Header, read_header
from gptoss_onnx.checkpoint.gguf.tokenizer import tokenizer_json
from gptoss_onnx.errors import CheckpointError
from support.gguf_files import add_tokenizer

TEXTS = (
    "It was a bright morning, and she'll've been told: I'M HERE\n\n  \t x\r\n",
    "3.14159 1000000 12 naïve Ünïcode Привет 你好 😀👩‍👩‍👧 ́e",
    "<|start|>user<|message|>What is 2+2?<|end|><|return|> <|notatoken|>",
    "https://example.com/a/b?c=d#e /* comment */ def f(x): return x**2",
)


@pytest.fixture(scope="module")
def original(demo_checkpoint: Path) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_file(str(demo_checkpoint / "tokenizer.json"))


@pytest.fixture(scope="module")
def header(demo_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Header:
    folder = tmp_path_factory.mktemp("tokenizer")
    writer = gguf.GGUFWriter(folder / "x.gguf", "gpt-oss")
    add_tokenizer(writer, demo_checkpoint / "tokenizer.json")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return read_header(CheckpointFolder(folder), "x.gguf")


@pytest.fixture(scope="module")
def made(header: Header) -> tokenizers.Tokenizer:
    content = tokenizer_json(header.metadata, "x.gguf")
    assert content is not None
    return tokenizers.Tokenizer.from_buffer(content)


@pytest.mark.parametrize("text", TEXTS)
def test_texts_encode_and_decode_alike(
    original: tokenizers.Tokenizer, made: tokenizers.Tokenizer, text: str
) -> None:
    ids = original.encode(text).ids
    assert made.encode(text).ids == ids
    for skip in (True, False):
        assert made.decode(ids, skip_special_tokens=skip) == original.decode(
            ids, skip_special_tokens=skip
        )


@settings(max_examples=300)
@given(text=st.text(max_size=80))
def test_any_text_encodes_alike(
    original: tokenizers.Tokenizer, made: tokenizers.Tokenizer, text: str
) -> None:
    assert made.encode(text).ids == original.encode(text).ids


def test_every_id_is_the_same_token(
    original: tokenizers.Tokenizer, made: tokenizers.Tokenizer
) -> None:
    assert made.get_vocab() == original.get_vocab()
    assert {
        number: (token.content, token.special)
        for number, token in made.get_added_tokens_decoder().items()
    } == {
        number: (token.content, token.special)
        for number, token in original.get_added_tokens_decoder().items()
    }


def test_a_file_without_a_tokenizer_has_none() -> None:
    assert tokenizer_json({}, "x.gguf") is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tokenizer.ggml.model": "llama"}, "tokenizer.ggml.model: found 'llama', expected 'gpt2'"),
        ({"tokenizer.ggml.pre": "qwen2"}, "tokenizer.ggml.pre: found 'qwen2', expected 'gpt-4o'"),
        ({"tokenizer.ggml.tokens": 3}, "tokenizer.ggml.tokens: expected a list of strings"),
        (
            {"tokenizer.ggml.token_type": np.ones(3, np.int32)},
            "tokenizer.ggml.token_type: expected",
        ),
        ({"tokenizer.ggml.merges": ["a b c"]}, "tokenizer.ggml.merges: expected a list"),
    ],
)
def test_another_tokenizer_is_refused_in_one_line(
    header: Header, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(CheckpointError) as caught:
        tokenizer_json(header.metadata | changes, "x.gguf")
    text = str(caught.value)
    assert text.startswith(f"x.gguf: {words}") and "\n" not in text
    assert "put the tokenizer.json of the model beside the file" in text


def test_what_is_made_is_json(header: Header) -> None:
    document = json.loads(tokenizer_json(header.metadata, "x.gguf") or b"")
    assert not any(token.startswith("[PAD") for token in document["model"]["vocab"])
