"""RoutingKeys: which requests are of one conversation, so that they reach the replica that holds
its beginning.

A conversation is known by how it begins: what comes before the first thing that the user says, and
that. Each turn sends it again. A Responses request that names an earlier response has the key of
that one.
"""

import hashlib
import json
import re
from collections import OrderedDict
from typing import Any

from gptoss_onnx.errors import InputError
from gptoss_onnx.json_text import parse_json
from gptoss_onnx.serving.body import MOST_PARTS

CHAT, TEXT, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
_BEGINNING = 200  # characters or ids of a plain prompt that tell texts apart
_MOST_RESPONSES = 100_000  # whose keys are remembered
_RESPONSE = re.compile(rb'"id": ?"(resp_[A-Za-z0-9_-]{1,100})"')
_LOOKED_AT = 4096  # bytes of an answer in which its id is looked for


class RoutingKeys:
    """Keys of requests, and of the responses that they were answered with.

    Equal keys lead to one replica as long as it lives; an empty key leads to any.
    """

    def __init__(self) -> None:
        self._of_response: OrderedDict[str, str] = OrderedDict()

    def of(self, path: str, body: bytes) -> str:
        """Return the key of a request; what is no request of ours has none."""
        if path.startswith(f"{RESPONSES}/"):
            return self._known(path.removeprefix(f"{RESPONSES}/").partition("/")[0])
        if path not in (CHAT, TEXT, RESPONSES):
            return ""
        try:
            fields = parse_json(body, "body", InputError, MOST_PARTS)
        except InputError:
            return ""  # a replica says what is wrong with it
        return self._of_fields(path, fields) if isinstance(fields, dict) else ""

    def learn(self, key: str, piece: bytes) -> None:
        """Remember the key of the response that an answer begins with."""
        found = _RESPONSE.search(piece[:_LOOKED_AT])
        if found is None:
            return
        self._of_response[found[1].decode()] = key
        while len(self._of_response) > _MOST_RESPONSES:
            self._of_response.popitem(last=False)

    def _of_fields(self, path: str, fields: dict[str, Any]) -> str:
        earlier = fields.get("previous_response_id")
        if path == RESPONSES and isinstance(earlier, str):
            return self._known(earlier)  # other replicas do not have that response
        chosen = fields.get("prompt_cache_key")
        if isinstance(chosen, str) and chosen:
            return _digest(chosen)
        if path == CHAT:
            return _digest(_beginning(fields.get("messages")))
        if path == TEXT:
            prompt = fields.get("prompt")
            return _digest(prompt[:_BEGINNING] if isinstance(prompt, (str, list)) else None)
        said = fields.get("input")
        items = [{"role": "user", "content": said}] if isinstance(said, str) else said
        return _digest([fields.get("instructions"), _beginning(items)])

    def _known(self, response: str) -> str:
        return self._of_response.get(response, "")


def _beginning(messages: Any) -> list[Any]:
    """Return who says what, up to the first thing that the user says."""
    found: list[Any] = []
    for message in messages if isinstance(messages, list) else ():
        if not isinstance(message, dict):
            break
        found.append([message.get("role"), _text(message.get("content"))])
        if message.get("role") == "user":
            break
    return found


def _text(content: Any) -> Any:
    """Return a text; one part alone is the same as its text."""
    if isinstance(content, list) and len(content) == 1 and isinstance(content[0], dict):
        return content[0].get("text", content)
    return content


def _digest(beginning: Any) -> str:
    if not beginning:
        return ""
    return hashlib.sha256(json.dumps(beginning).encode()).hexdigest()
