"""What ends a text: token ids, and texts that are not a token's."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from gptoss_onnx.errors import InputError
from gptoss_onnx.package import Package
from gptoss_onnx.runtime.text import Tokenizer

logger = logging.getLogger(__name__)


def split_stops(
    stop: Sequence[str], special_tokens: Mapping[str, int]
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return the ids of those stops that are the spelling of a special token, and the other texts.

    Special tokens are no part of a generated text, so their spelling would never be found in it.
    Raises InputError for a text that holds such a spelling among other letters.
    """
    tokens, texts = [], []
    for text in stop:
        if text in special_tokens:
            tokens.append(special_tokens[text])
            continue
        found = next((spelling for spelling in special_tokens if spelling in text), None)
        if found is not None:
            raise InputError(
                f"stop: found {text!r}, which holds the special token {found}; that is a token and "
                "no part of a "
                "text: give it alone"
            )
        texts.append(text)
    return tuple(tokens), tuple(texts)


def stop_token_ids(
    package: Package, stop_tokens: Sequence[int] | None, vocab: int
) -> frozenset[int]:
    """Return the ids that end a text: those named, or for None the package's."""
    if stop_tokens is None:  # the package's; one beyond the vocabulary never comes
        return frozenset(token for token in package.eos_tokens if 0 <= token < vocab)
    return frozenset(stop_tokens)


def end_tokens(
    package: Package, tokenizer: Tokenizer | None, is_chat: bool, vocab: int
) -> tuple[int, ...]:
    """Return the ids that end a text where the caller names none.

    They are the package's, and those that end an answer in harmony. Ids that no token has are left
    out.
    """
    of_chats = tokenizer.harmony_stop_tokens if is_chat and tokenizer is not None else ()
    return tuple(
        token for token in dict.fromkeys([*package.eos_tokens, *of_chats]) if 0 <= token < vocab
    )


def warn_endless(folder: Path) -> None:
    """Say that a text of a package will not end where its author would end it."""
    logger.warning(
        "%s: only the limit on new tokens ends this text: the package names no end "
        "token "
        "(eos_token_id); name a stop token",
        folder,
    )
