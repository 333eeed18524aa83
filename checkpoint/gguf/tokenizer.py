"""The tokenizer of a GGUF file as a tokenizer.json.

gpt-oss's is a byte-level BPE, as GPT-2's, that splits texts as GPT-4o's does.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from gptoss_onnx.checkpoint.fields import shown
from gptoss_onnx.checkpoint.gguf.header import Texts, Value
from gptoss_onnx.errors import CheckpointError

MODEL = "tokenizer.ggml.model"
TEMPLATE = "tokenizer.chat_template"
_PRE, _TOKENS = "tokenizer.ggml.pre", "tokenizer.ggml.tokens"
_TYPES, _MERGES = "tokenizer.ggml.token_type", "tokenizer.ggml.merges"
_FORM = "gpt2/gpt-4o"  # what the two keys say
_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5
# OpenAI's o200k_base, tiktoken_ext/openai_public.py.
_SPLIT = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
ADVICE = "put the tokenizer.json of the model beside the file, or name one with --tokenizer"


def tokenizer_document(metadata: Mapping[str, Value], where: str) -> dict[str, Any] | None:
    """Return the content of a tokenizer.json; None if the file has no tokenizer.

    Encodes every text as the tokenizer that the file was made from. Raises CheckpointError for one
    of another kind, and for lists that do not fit; `where` names the file.
    """
    if MODEL not in metadata:
        return None
    for key, only in zip((MODEL, _PRE), _FORM.split("/"), strict=True):
        if metadata.get(key) != only:
            found = metadata.get(key)
            text = "a list" if isinstance(found, Texts | np.ndarray) else shown(found)
            raise CheckpointError(f"{where}: {key}: found {text}, expected {only!r}: {ADVICE}")
    tokens = list(_texts(metadata, _TOKENS, where))
    kinds = metadata.get(_TYPES, np.full(len(tokens), _NORMAL))
    if not isinstance(kinds, np.ndarray) or len(kinds) != len(tokens):
        raise CheckpointError(f"{where}: {_TYPES}: expected {len(tokens)} numbers: {ADVICE}")
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            _added(number, token, kind == _CONTROL)
            for number, (token, kind) in enumerate(zip(tokens, kinds.tolist(), strict=True))
            if kind in (_CONTROL, _USER_DEFINED)
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": {"Regex": _SPLIT},
                    "behavior": "Isolated",
                    "invert": False,
                },
                _byte_level(),
            ],
        },
        "post_processor": None,
        "decoder": _byte_level(),
        "model": _model(metadata, tokens, kinds.tolist(), where),
    }


def tokenizer_json(metadata: Mapping[str, Value], where: str) -> bytes | None:
    """Return `tokenizer_document` as a file; raises as it does."""
    document = tokenizer_document(metadata, where)
    return None if document is None else json.dumps(document, ensure_ascii=False).encode()


def _model(
    metadata: Mapping[str, Value], tokens: list[str], kinds: list[int], where: str
) -> dict[str, Any]:
    # llama.cpp fills the vocabulary up to the embedding's rows with words that are not in use
    vocabulary = {
        token: number
        for number, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind != _UNUSED
    }
    if len(vocabulary) != sum(kind != _UNUSED for kind in kinds):
        raise CheckpointError(f"{where}: {_TOKENS}: found a token twice: {ADVICE}")
    merges = [merge.split(" ") for merge in _texts(metadata, _MERGES, where)]
    for merge in merges:
        if len(merge) != 2 or merge[0] + merge[1] not in vocabulary:
            raise CheckpointError(
                f"{where}: {_MERGES}: found {shown(' '.join(merge))}, expected two tokens whose "
                f"sum is a token: {ADVICE}"
            )
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": vocabulary,
        "merges": merges,
    }


def _texts(metadata: Mapping[str, Value], key: str, where: str) -> Texts:
    found = metadata.get(key)
    if not isinstance(found, Texts):
        raise CheckpointError(f"{where}: {key}: expected a list of strings: {ADVICE}")
    return found


def _added(number: int, content: str, special: bool) -> dict[str, Any]:
    return {
        "id": number,
        "content": content,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": special,
    }


def _byte_level() -> dict[str, Any]:
    return {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": False,
    }
