"""Several API keys on one server: what one has asked is not told to another."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from support.served import Served

Serve = Callable[..., Served]
KEYS = ("first-key", "second-key")


def cached(url: str, key: str, path: str, body: dict[str, Any]) -> int:
    """Return how many tokens of a prompt the server says were cached."""
    headers = {"authorization": f"Bearer {key}"}
    answer = httpx.post(f"{url}{path}", json=body, headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    usage = answer.json()["usage"]
    details = usage.get("prompt_tokens_details") or usage["input_tokens_details"]
    found = details["cached_tokens"]
    assert isinstance(found, int)
    return found


def bodies(text: str) -> list[tuple[str, dict[str, Any]]]:
    return [
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": f"Chat: {text}"}], "max_tokens": 1},
        ),
        ("/v1/completions", {"prompt": f"Text: {text}", "max_tokens": 1}),
        ("/v1/responses", {"input": f"Response: {text}", "max_output_tokens": 16}),
    ]


@pytest.mark.parametrize("place", range(3))
def test_usage_tells_a_key_of_its_own_prompts_alone(serve: Serve, place: int) -> None:
    url = serve(api_keys=KEYS).url
    path, body = bodies("the secret of the first key " * 3)[place]
    cached(url, KEYS[0], path, body)
    begun = cached(url, KEYS[1], path, body)
    again = cached(url, KEYS[0], path, body)
    # every conversation of the second key's has the same few tokens before what is said
    assert begun < 16 < again


def test_prefixes_that_keys_share(serve: Serve) -> None:
    url = serve(api_keys=KEYS, shares_prefixes=True).url
    path, body = bodies("what everybody is told at first " * 3)[0]
    cached(url, KEYS[0], path, body)
    assert cached(url, KEYS[1], path, body) > 16
