"""What ends a text: token ids, and texts that are not a token's."""

from collections.abc import Mapping, Sequence

from gptoss_onnx.errors import InputError
from gptoss_onnx.runtime.sampling import Sampling


def split_stops(stop: Sequence[str], special_tokens: Mapping[str, int]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return the ids of those stops that are the spelling of a special token, and the other texts.

    Special tokens are no part of a generated text, so their spelling would never be found in it. Raises
    InputError for a text that holds such a spelling among other letters.
    """
    tokens, texts = [], []
    for text in stop:
        if text in special_tokens:
            tokens.append(special_tokens[text])
            continue
        found = next((spelling for spelling in special_tokens if spelling in text), None)
        if found is not None:
            raise InputError(
                f"stop: found {text!r}, which holds the special token {found}; that is a token and no part of a "
                "text: give it alone"
            )
        texts.append(text)
    return tuple(tokens), tuple(texts)


def end_tokens(sampling: Sampling, package_ends: Sequence[int], chat_ends: Sequence[int] = ()) -> tuple[int, ...]:
    """Return the ids that end a text: those of the settings, or else the package's and those of its chats."""
    if sampling.stop_tokens is not None:
        return sampling.stop_tokens
    return tuple(dict.fromkeys([*package_ends, *chat_ends]))
