"""Who may call: keys, hosts, origins, and what web pages of strangers can send."""

from collections.abc import Callable

import httpx
import openai
import pytest

from support.served import Served

PATH = "/v1/models"
CHAT = "/v1/chat/completions"
BODY = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
Serve = Callable[..., Served]


def test_keys(serve: Serve) -> None:
    url = serve(api_keys=("first-key", "second-key")).url
    for key in ("first-key", "second-key"):
        with openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client:
            assert client.models.list().data
    with (
        openai.OpenAI(base_url=f"{url}/v1", api_key="third-key", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        client.models.list()
    assert caught.value.code == "invalid_api_key"
    assert "third-key" not in caught.value.message
    for headers in (
        {},
        {"authorization": "first-key"},
        {"authorization": "Basic first-key"},
        {"authorization": "Bearer"},
        {"authorization": "Bearer first-key2"},
    ):
        assert httpx.get(f"{url}{PATH}", headers=headers).status_code == 401
    assert httpx.get(f"{url}/metrics").status_code == 401
    assert httpx.get(f"{url}/health").status_code == 200
    assert httpx.get(f"{url}/ready").status_code == 200


def test_a_key_of_other_letters_is_unknown(serve: Serve) -> None:
    url = serve(api_keys=("key",)).url
    headers = {"authorization": b"Bearer k\xe9y"}
    assert httpx.get(f"{url}{PATH}", headers=headers).status_code == 401


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8000", "127.0.0.1", "[::1]:80", "10.0.0.7"]
)
def test_hosts_that_no_stranger_can_own(server: Served, host: str) -> None:
    assert httpx.get(f"{server.url}{PATH}", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "[", "a@b", "x y"])
def test_a_name_that_leads_here_is_refused(server: Served, host: str) -> None:
    answer = httpx.get(f"{server.url}{PATH}", headers={"host": host})
    assert answer.status_code == 403
    assert answer.json()["error"]["message"].startswith("Host: ")


def test_an_allowed_host_and_a_key_each_open_it(serve: Serve) -> None:
    named = serve(allowed_hosts=("models.example",)).url
    assert httpx.get(f"{named}{PATH}", headers={"host": "Models.Example:80"}).status_code == 200
    keyed = serve(api_keys=("key",)).url
    headers = {"host": "evil.example", "authorization": "Bearer key"}
    assert httpx.get(f"{keyed}{PATH}", headers=headers).status_code == 200


def test_a_page_of_another_site_is_refused(server: Served) -> None:
    for origin in ("https://evil.example", "null", "http://127.0.0.1", "http://localhost:1"):
        answer = httpx.post(f"{server.url}{CHAT}", json=BODY, headers={"origin": origin})
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers
    own = httpx.post(f"{server.url}{CHAT}", json=BODY, headers={"origin": server.url})
    assert own.status_code == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_what_a_page_can_send_unasked_is_refused(server: Served, kind: str) -> None:
    headers = {"content-type": kind} if kind else {}
    answer = httpx.post(f"{server.url}{CHAT}", content=b"{}", headers=headers)
    assert answer.status_code == 415
    assert "application/json" in answer.json()["error"]["message"]


def test_preflights_are_unknown_without_cors(server: Served) -> None:
    headers = {"origin": "https://a.example", "access-control-request-method": "POST"}
    answer = httpx.options(f"{server.url}{CHAT}", headers=headers)
    assert answer.status_code == 405
    assert "access-control-allow-origin" not in answer.headers


def test_cors(serve: Serve) -> None:
    url = serve(cors_origins=("https://a.example",), api_keys=("key",)).url
    asked = {
        "origin": "https://a.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,x-stainless-os",
    }
    preflight = httpx.options(f"{url}{CHAT}", headers=asked)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "https://a.example"
    headers = {"origin": "https://a.example", "authorization": "Bearer key"}
    answer = httpx.post(f"{url}{CHAT}", json=BODY, headers=headers)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://a.example"
    # an error can be read by the page, too
    refused = httpx.post(f"{url}{CHAT}", json=BODY, headers={"origin": "https://a.example"})
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == "https://a.example"
    other = httpx.options(f"{url}{CHAT}", headers={**asked, "origin": "https://b.example"})
    assert other.status_code == 400
