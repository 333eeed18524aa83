"""What `serve` refuses: in one line, and with nothing left behind."""

import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gptoss_onnx.cli.serve_options import KEY_VARIABLE, api_keys
from gptoss_onnx.errors import InputError
from gptoss_onnx.memory import MemoryRoom
from gptoss_onnx.runtime import Session
from support.desk import Desk, Words
from support.tiny_package import LONGEST

Refuse = Callable[..., str]


@pytest.fixture
def refuse(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Refuse:
    """Expect `serve` of the desk's package to be refused."""
    monkeypatch.delenv(KEY_VARIABLE, raising=False)

    def refused(words: Words, *more: object) -> str:
        return desk.refused(words, "serve", desk.package, "--port", 0, *more)

    return refused


@pytest.fixture
def unloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no graph be loaded."""

    def load(*_: object) -> None:
        raise AssertionError("the graph was loaded")

    monkeypatch.setattr(Session, "open", load)


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port on which somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.usefixtures("unloaded")
def test_a_port_in_use(refuse: Refuse, taken_port: int) -> None:
    words = (f"cannot listen on 127.0.0.1 port {taken_port}", "Address already in use", "or 0")
    refuse(words, "--port", taken_port)


@pytest.mark.usefixtures("unloaded")
def test_an_address_of_another_machine(refuse: Refuse) -> None:
    refuse("cannot listen on 192.0.2.7", "--host", "192.0.2.7")
    refuse("--host: found 'no-such-name.invalid'", "--host", "no-such-name.invalid")
    refuse("--host: found", "--host", "a" * 300)


def test_more_than_fits(refuse: Refuse, monkeypatch: pytest.MonkeyPatch) -> None:
    small = MemoryRoom(600_000_000, "the control group of this process")
    monkeypatch.setattr("gptoss_onnx.memory.memory_room", lambda: small)
    words = ("1024 slots of 160 tokens: found a need of", "the control group of this process has")
    refuse(words, "--slots", 1024, "--capacity", LONGEST)
    refuse("prefix cache 9.0 GB", "--prefix-cache", 9_000_000_000)


def test_more_than_the_model_takes(refuse: Refuse) -> None:
    refuse(f"--capacity: found 161, expected at most {LONGEST}", "--capacity", LONGEST + 1)


@pytest.mark.usefixtures("unloaded")
def test_a_package_without_a_tokenizer(desk: Desk, refuse: Refuse) -> None:
    (desk.package / "tokenizer.json").unlink()
    refuse("found no tokenizer.json")


def test_what_is_no_package(desk: Desk) -> None:
    desk.refused("manifest.json", "serve", desk.folder)


@pytest.mark.usefixtures("unloaded")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--api-key", ""), "--api-key: found an empty one"),
        (("--api-key", "a b"), "api_keys: found one that"),
        (("--api-key", "schlüssel"), "api_keys: found one that"),
        (("--model-name", ""), "model: found ''"),
        (("--model-name", "a\nb"), "model: found"),
        (("--slots", "0"), "'--slots'"),
        (("--port", "70000"), "'--port'"),
        (("--drain-seconds", "0"), "'--drain-seconds'"),
        (("--provider", "tpu"), "'--provider'"),
    ],
)
def test_wrong_values(refuse: Refuse, arguments: tuple[str, ...], words: str) -> None:
    line = refuse(words, *arguments)
    assert "schl" not in line  # keys belong in no log


@pytest.mark.usefixtures("unloaded")
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "found no such file, expected API keys"),
        (b"", "found no API key, expected one a line"),
        (b"# none\n\n", "found no API key, expected one a line"),
        (b"\xff\xfe", "found no UTF-8 at byte 0"),
        (b"x" * 1_000_001, "found more than 1000000 bytes"),
        (b"one\ntwo words\n", "api_keys: found one that"),
    ],
)
def test_a_bad_file_of_keys(desk: Desk, refuse: Refuse, content: bytes | None, words: str) -> None:
    file = desk.folder / "keys"
    if content is not None:
        file.write_bytes(content)
    refuse(words, "--api-key-file", file)


def test_a_folder_of_keys(desk: Desk, refuse: Refuse) -> None:
    refuse("found a folder, expected a regular file", "--api-key-file", desk.folder)


def test_keys_come_from_everywhere_each_once(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# of the team\nthree\n\n  one \n")
    assert api_keys(("one", "two"), file, {KEY_VARIABLE: "four one"}) == (
        "one",
        "two",
        "four",
        "three",
    )
    assert api_keys((), None, {KEY_VARIABLE: "  "}) == ()
    with pytest.raises(InputError):
        api_keys(("",), None, {})


def test_the_missing_extra_is_named(refuse: Refuse, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("gptoss_onnx.serving")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    refuse(("uvicorn", "pip install", "[serve]"))


@pytest.mark.usefixtures("unloaded")
def test_what_replicas_cannot_do(refuse: Refuse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    refuse("found with --provider cuda", "--replicas", 2, "--provider", "cuda")
    refuse("found with --log-json", "--replicas", 2, "--log-json")
    monkeypatch.setitem(sys.modules, "ray", None)
    refuse(("ray", "pip install", "[ray]"), "--replicas", 2)
