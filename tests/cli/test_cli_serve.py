"""`gptoss-onnx serve` as a person starts it: what it says, who may call, and how it ends."""

import http.client
import json
import re
import shlex
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from gptoss_onnx.cli.serve import serve
from gptoss_onnx.cli.serve_options import KEY_VARIABLE
from gptoss_onnx.serving.settings import ServerSettings
from support.scripted_package import letter, write_scripted_package
from support.serve_command import Served, served

SHORT, LONG = letter(0), letter(1)
SAID = "Tides follow the Moon."
WORDS = "on " * 3000
# More than one where a request that will be refused is just being read.
STOPPING = r"stopping; \d requests? may end first\n"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package whose answers are known, one short and one long."""
    scripts = [f"<|channel|>final<|message|>{text}<|return|>" for text in (SAID, WORDS)]
    return write_scripted_package(tmp_path_factory.mktemp("serve") / "tides", scripts)


@pytest.fixture(scope="module")
def server(package: Path) -> Iterator[Served]:
    """A server that no test stops."""
    with served(package) as running:
        yield running


def connection(url: str) -> http.client.HTTPConnection:
    address = urlsplit(url)
    assert address.hostname
    return http.client.HTTPConnection(address.hostname, address.port, timeout=30)


def ask(url: str, content: str, **fields: Any) -> http.client.HTTPResponse:
    """Send a chat and return the response, whose body is still to be read."""
    body = {"messages": [{"role": "user", "content": content}], **fields}
    key = fields.pop("key", None)
    body.pop("key", None)
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    link = connection(url)
    link.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    return link.getresponse()


def content_of(response: http.client.HTTPResponse) -> str:
    document = json.loads(response.read())
    assert response.status == 200, document
    return str(document["choices"][0]["message"]["content"])


def streamed(lines: Iterator[bytes]) -> tuple[str, str | None]:
    """Return the text of a stream and its last data."""
    text, last = "", None
    for line in lines:
        if line.startswith(b"data: "):
            last = line[6:].strip().decode()
            if last != "[DONE]":
                text += json.loads(last)["choices"][0]["delta"].get("content") or ""
    return text, last


def test_it_says_what_there_is_to_know(server: Served, package: Path) -> None:
    rows = dict(line.split(None, 1) for line in server.greeting.splitlines()[:-1])
    assert rows["page"] == server.url
    assert rows["API"] == f"{server.url}/v1, model {package.name}"
    assert rows["answers"].startswith("8 at once, each with its prompt up to 8192 tokens; 64 more")
    assert rows["memory"].startswith("up to ")
    assert "KV caches" in rows["memory"]
    assert rows["kernels"].endswith("exact, cpu")
    assert rows["access"] == "without a key, from this machine alone"
    assert server.greeting.splitlines()[-1].startswith("ready: Ctrl-C")


def test_the_line_to_try_can_be_pasted(server: Served) -> None:
    line = next(line for line in server.greeting.splitlines() if line.startswith("try "))
    words = shlex.split(line.removeprefix("try"))
    assert words[:2] == ["curl", "-N"]
    body = json.loads(words[words.index("-d") + 1])
    link = connection(server.url)
    header, _, value = words[words.index("-H") + 1].partition(": ")
    link.request("POST", urlsplit(words[2]).path, json.dumps(body), {header: value})
    response = link.getresponse()
    assert response.status == 200
    assert streamed(iter(response))[1] == "[DONE]"


def test_chats_and_the_page_are_served(server: Served) -> None:
    assert content_of(ask(server.url, SHORT, model="tides")) == SAID
    link = connection(server.url)
    link.request("GET", "/")
    response = link.getresponse()
    assert response.status == 200
    assert b"<title>" in response.read()


def test_defaults_are_those_of_the_server() -> None:
    """The command line does not import the server to say them."""
    defaults = {parameter.name: parameter.default for parameter in serve.params}
    settings = ServerSettings(model="x")
    assert defaults["max_body"] == settings.max_body_bytes
    for name in ("max_requests", "request_seconds", "drain_seconds"):
        assert defaults[name] == getattr(settings, name)


def test_keys_of_the_environment_count(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "a-first-key another-key")
    with served(package, "--model-name", "moon", "--log-json") as running:
        assert "with one of 2 API keys" in running.greeting
        assert "a-first-key" not in running.greeting
        assert f'"Authorization: Bearer ${{{KEY_VARIABLE}%% *}}"' in running.greeting
        assert ask(running.url, SHORT).status == 401
        assert content_of(ask(running.url, SHORT, key="another-key", model="moon")) == SAID
        code, errors = running.stop()
    lines = [json.loads(line) for line in errors.splitlines() if line.startswith("{")]
    assert [line["status"] for line in lines] == [401, 200]
    assert "another-key" not in errors
    assert code == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_streams_end(package: Path, number: signal.Signals) -> None:
    with served(package) as running:
        stream = ask(running.url, LONG, stream=True, max_completion_tokens=1500)
        first = stream.readline()
        running.process.send_signal(number)
        assert refusal_of(running.url) == 503
        text, last = streamed(iter([first, *stream]))
        _, errors = running.process.communicate(timeout=30)
    assert (last, running.process.returncode) == ("[DONE]", 0)
    assert WORDS.startswith(text)
    assert len(text) > 1000
    assert re.fullmatch(STOPPING, errors)


def test_a_second_interrupt_cuts_streams_off(package: Path) -> None:
    with served(package) as running:
        stream = ask(running.url, LONG, stream=True)
        stream.readline()
        running.process.send_signal(signal.SIGINT)
        refusal_of(running.url)
        code, errors = running.stop(signal.SIGINT)
    assert code == 130
    assert re.match(STOPPING, errors)
    assert "Traceback" not in errors


def test_a_time_limit_ends_the_end(package: Path) -> None:
    with served(package, "--drain-seconds", "0.2") as running:
        stream = ask(running.url, LONG, stream=True)
        lines = [stream.readline()]
        ended = threading.Thread(target=lambda: lines.extend(stream))
        ended.start()
        code, _ = running.stop()
        ended.join(30)
    assert code == 0
    assert not ended.is_alive()
    assert b"[DONE]" not in b"".join(lines)
    assert b'"error"' in b"".join(lines)


def test_nobody_is_kept_waiting_by_the_port(package: Path) -> None:
    """A server on a port that another one has just left starts at once."""
    with served(package) as running:
        assert content_of(ask(running.url, SHORT)) == SAID
        port = urlsplit(running.url).port
        assert running.stop()[0] == 0
    with served(package, "--port", port) as again:
        assert urlsplit(again.url).port == port
        assert again.stop()[0] == 0


@pytest.mark.skipif(not socket.has_ipv6, reason="Python without IPv6")
def test_an_address_of_version_6(package: Path) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no ::1")
    with served(package, "--host", "::1") as running:
        assert running.url.startswith("http://[::1]:")
        assert content_of(ask(running.url, SHORT)) == SAID
        assert running.stop()[0] == 0


def refusal_of(url: str) -> int:
    """Return the status that new requests get, once they are refused."""
    for _ in range(100):
        response = ask(url, SHORT)
        response.read()
        if response.status != 200:
            return response.status
    return 200
