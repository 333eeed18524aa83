"""Log-probabilities as OpenAI's bodies tell them: for chats by token, for completions by column."""

from collections.abc import Sequence
from typing import Any

from gptoss_onnx.runtime.engine import TokenLogprobs
from gptoss_onnx.serving.token_bytes import TokenBytes

_LEAST = -9999.0  # what JSON can say of −inf; OpenAI writes the same


def chat_logprobs(entries: Sequence[TokenLogprobs], names: TokenBytes) -> dict[str, Any]:
    """Return `logprobs` of a chat's choice: an object for each token of its content."""
    content = [
        {
            **_named(entry.token, entry.logprob, names),
            "top_logprobs": [_named(token, logprob, names) for token, logprob in entry.top],
        }
        for entry in entries
    ]
    return {"content": content, "refusal": None}


def text_logprobs(
    entries: Sequence[TokenLogprobs], names: TokenBytes, offset: int
) -> dict[str, Any]:
    """Return `logprobs` of a completion's choice: four lists of the same length.

    `offset` are the characters before the first token. Tokens with the same text are one in
    `top_logprobs`, of which the most probable counts.
    """
    texts = [names.text(entry.token) for entry in entries]
    offsets = []
    for text in texts:
        offsets.append(offset)
        offset += len(text)
    return {
        "tokens": texts,
        "token_logprobs": [_finite(entry.logprob) for entry in entries],
        "top_logprobs": [
            {names.text(token): _finite(logprob) for token, logprob in reversed(entry.top)}
            for entry in entries
        ],
        "text_offset": offsets,
    }


def _named(token: int, logprob: float, names: TokenBytes) -> dict[str, Any]:
    content = names.bytes(token)
    return {
        "token": content.decode("utf-8", "replace"),
        "logprob": _finite(logprob),
        "bytes": list(content),
    }


def _finite(logprob: float) -> float:
    return max(logprob, _LEAST)
