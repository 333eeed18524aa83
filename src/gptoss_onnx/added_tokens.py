"""The special tokens that a tokenizer.json adds to its vocabulary, read without a tokenizer
library.

gpt-oss writes its messages in OpenAI's harmony format, whose tokens are such additions. A
generation must end at the tokens that end an answer or call a tool:
https://developers.openai.com/cookbook/articles/openai-harmony.
"""

from collections.abc import Mapping

from gptoss_onnx.errors import GptOssError
from gptoss_onnx.harmony_tokens import CALL, RETURN, harmony_stop_tokens
from gptoss_onnx.json_text import parse_json

TOKENIZER_LIMIT = 40_000_000  # bytes of tokenizer.json; gpt-oss's has 28 million
END_OF_TEXT = "<|endoftext|>"


def added_tokens(text: bytes, where: str, error: type[GptOssError]) -> dict[str, int]:
    """Return the id of each added token of a tokenizer.json.

    Args:
        text: the file's content.
        where: its name, for messages.
        error: what is raised where the file is not such JSON.
    """
    document = parse_json(text, where, error)
    tokens = document.get("added_tokens", []) if isinstance(document, dict) else None
    if not isinstance(tokens, list) or not all(map(_is_token, tokens)):
        raise error(
            f"{where}: not a tokenizer: expected added_tokens to be a list of objects with content "
            "and id"
        )
    return {token["content"]: token["id"] for token in tokens}


def harmony_stops(tokens: Mapping[str, int]) -> dict[str, int]:
    """Return the tokens that end a generation in harmony's format, with their ids; none for other
    tokenizers.

    Besides those that end an answer this is the end of a text, as in gpt-oss's published
    generation_config.json.
    """
    if not harmony_stop_tokens(tokens):
        return {}
    return {name: tokens[name] for name in (RETURN, END_OF_TEXT, CALL) if name in tokens}


def _is_token(entry: object) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("content"), str)
        and type(entry.get("id")) is int
    )
