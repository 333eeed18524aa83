"""The bytes of tokens: together they are the text, whatever the kind of tokenizer."""

from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers

from gptoss_onnx.runtime import Tokenizer
from gptoss_onnx.serving.token_bytes import TokenBytes
from support.tiny_package import byte_tokenizer

TEXTS = st.text(st.characters(codec="utf-8"), max_size=30)


@pytest.fixture(scope="module")
def by_bytes(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A tokenizer that gives every byte an id."""
    return saved(byte_tokenizer(), tmp_path_factory.mktemp("bytes"))


@pytest.fixture(scope="module")
def with_fallback(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """One in Llama's form: `▁` for a space, letters it does not know as `<0x00>` to `<0xFF>`."""
    spellings = [f"<0x{byte:02X}>" for byte in range(256)]
    vocabulary = {text: id_ for id_, text in enumerate(["<unk>", *spellings, "▁", "a", "b", "é"])}
    model = models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    backend = tokenizers.Tokenizer(model)
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return saved(backend, tmp_path_factory.mktemp("fallback"))


def saved(backend: tokenizers.Tokenizer, folder: Path) -> Tokenizer:
    backend.save(str(folder / "tokenizer.json"))
    return Tokenizer.open(folder)


@given(text=TEXTS)
@settings(deadline=None)
def test_byte_level(by_bytes: Tokenizer, text: str) -> None:
    names = TokenBytes(by_bytes)
    tokens = by_bytes.encode_plain(text)
    assert b"".join(map(names.bytes, tokens)) == text.encode()


@given(text=TEXTS)
@settings(deadline=None)
def test_merged_bytes(tokenizer: Tokenizer, text: str) -> None:
    """The demo's tokens hold several bytes each, parts of characters among them."""
    names = TokenBytes(tokenizer)
    tokens = tokenizer.encode_plain(text)
    assert b"".join(map(names.bytes, tokens)) == text.encode()


@given(text=TEXTS.filter(lambda text: "▁" not in text and "<0x" not in text))
@settings(deadline=None)
def test_byte_fallback(with_fallback: Tokenizer, text: str) -> None:
    names = TokenBytes(with_fallback)
    tokens = with_fallback.encode(text)
    assert b"".join(map(names.bytes, tokens)) == (f" {text}" if text else "").encode()


def test_special_and_unknown_tokens(tokenizer: Tokenizer) -> None:
    names = TokenBytes(tokenizer)
    assert names.text(tokenizer.special_tokens["<|end|>"]) == "<|end|>"
    assert names.bytes(1_000_000) == b""
