"""The C++ client's JSON: what it reads, what it refuses, what that costs, and what it writes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gptoss_onnx.json_text import JSON_LIMIT, printable
from support.cpp_client import Client, Limits, run

pytestmark = [pytest.mark.cpp, pytest.mark.clients]

BROKEN_JSON = [
    *(
        "",
        "{",
        "[1,]",
        "[,1]",
        '{"a":1,}',
        '{"a"}',
        "{1:2}",
        "[1 2]",
        "1 2",
        "01",
        "+1",
        ".5",
        "5.",
        "1e",
        "-",
        "0x1",
    ),
    *(
        "nul",
        "True",
        "NaN",
        "Infinity",
        "'a'",
        '"a',
        '"\t"',
        '"\\x"',
        '"\\u12"',
        '"\\u12g4"',
        '"\\ud800"',
        '"\\udc00"',
    ),
    *(
        '"\\u0000"',
        '{"a":1,"b":2,"a":1}',
        '[{"\\u0061":1,"a":2}]',
        "1" * 401,
        "[" * 100_000,
        '{"":' * 100_000,
        "--1",
        "1.e5",
    ),
    *('"\\ud800\\u0041"', "1e999", "[" * 500 + "]" * 500, "[1]]", "\ufeff1", "[1]\0"),
]


def flat(value: Any, path: str = "") -> dict[str, tuple[int, Any]]:
    """Return a document as the probe prints it: by path, the kind of each value and the value, or
    its size.
    """
    below = path + "/" if path else ""
    if isinstance(value, dict):
        entries = {path: (6, len(value))}
        for key, member in value.items():
            entries |= flat(member, below + key)
        return entries
    if isinstance(value, list):
        entries = {path: (5, len(value))}
        for index, element in enumerate(value):
            entries |= flat(element, below + str(index))
        return entries
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**63:
        value = float(value)
    return {path: ([type(None), bool, int, float, str].index(type(value)), value)}


texts = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"))
keys = st.text('aé\U0001f600"\\\n', min_size=1)
finite = st.floats(allow_nan=False, allow_infinity=False)
documents = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | finite | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)


@given(document=documents, ascii_only=st.booleans(), indent=st.none() | st.just(2))
@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_json_reads_what_python_writes(
    client: Client, tmp_path: Path, document: Any, ascii_only: bool, indent: int | None
) -> None:
    path = tmp_path / "document.json"
    text = json.dumps(document, ensure_ascii=ascii_only, indent=indent)
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    result = run(client.probe, "json", path)
    assert result.code == 0, result.err
    # splitlines() splits at U+0085 too
    found = [json.loads(line) for line in result.out.split("\n")[:-1]]
    assert {path: (kind, value) for path, kind, value in found} == flat(document)


@pytest.mark.parametrize("text", BROKEN_JSON, ids=lambda text: ascii(text)[:20])
def test_json_refuses_what_is_none(client: Client, tmp_path: Path, text: str) -> None:
    path = tmp_path / "document.json"
    path.write_bytes(text.encode())
    result = run(client.probe, "json", path)
    assert result.code == 2
    assert result.err.startswith(f"{path}: not JSON: byte ")


@pytest.mark.parametrize(
    "bytes_",
    [
        b'"\xff"',
        b'"\xc0\x80"',
        b'"\xed\xa0\x80"',
        b'"\xf4\x90\x80\x80"',
        b'"\xe2\x82"',
        b"\xff",
        b'"\0"',
    ],
    ids=repr,
)
def test_json_refuses_what_is_not_utf8(client: Client, tmp_path: Path, bytes_: bytes) -> None:
    path = tmp_path / "document.json"
    path.write_bytes(bytes_)
    result = run(client.probe, "json", path)
    assert result.code == 2
    assert result.err.startswith(f"{path}: not JSON: byte ")


def _nested(levels: int, text: str) -> str:
    return "[" * levels + text + "]" * levels


# Functions, for they are megabytes each, which only the process that runs the test has to make.
LONG_JSON: dict[str, tuple[Callable[[], str], str]] = {
    "numbers": (
        lambda: _nested(90, "0," * (JSON_LIMIT // 2 - 201) + "0"),
        "found an array, expected an object",
    ),
    "arrays": (
        lambda: "[" + "[]," * (JSON_LIMIT // 3 - 2) + "[]]",
        "found an array, expected an object",
    ),
    "keys": (
        lambda: "{" + ",".join(f'"{key:x}":{{}}' for key in range(1_400_000)) + "}",
        "format: found nothing",
    ),
    "escapes": (
        lambda: '"' + "\\n" * (JSON_LIMIT // 2 - 2) + '"',
        "found a string, expected an object",
    ),
    "a-long-key": (
        lambda: '{"' + "a" * (JSON_LIMIT // 2) + '":' + _nested(90, "0," * 3_899_999 + "0") + "}",
        "format: found nothing",
    ),
}


@pytest.mark.parametrize(("made", "line"), LONG_JSON.values(), ids=LONG_JSON)
def test_json_costs_memory_in_proportion_to_its_text(
    client: Client, tmp_path: Path, made: Callable[[], str], line: str
) -> None:
    path, text = tmp_path / "manifest.json", made()
    path.write_text(text)
    assert JSON_LIMIT * 0.9 < len(text) < JSON_LIMIT
    result = client.run(tmp_path, "--verify", limits=Limits())
    assert (result.code, result.err.count("\n")) == (2, 1), result.err[-300:]
    assert line in result.err


def test_json_of_more_bytes_than_the_limit(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(" " * JSON_LIMIT + "{}")
    result = client.run(tmp_path, "--verify", limits=Limits())
    assert result.code == 2
    assert f"found more than {JSON_LIMIT} bytes, expected at most that many" in result.err


@given(text=st.text(st.characters(exclude_categories=("Cs",))))
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_text_is_made_safe_to_print(client: Client, tmp_path: Path, text: str) -> None:
    path = tmp_path / "text"
    path.write_text(text, newline="")
    printed, literal = run(client.probe, "text", path).out.split("\n")[:2]
    assert printed == printable(text)
    assert json.loads(literal) == text
    assert printable(literal) == literal


def test_bytes_that_are_no_text_are_printed_as_escapes(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(b"a\xffb\x1b[2J\xc2\x9b\xe2\x80\xae")
    printed, literal = run(client.probe, "text", path).out.splitlines()
    assert printed == r"a\xffb\x1b[2J\x9b\u202e"
    assert json.loads(literal) == "a\ufffdb\x1b[2J\x9b\u202e"


def test_json_escapes(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "document.json"
    path.write_text(r'["\"\\\/\b\f\n\r\t", "\u0041\u00e9\u20ac\ud83d\ude00", "\u0001", "\u00e9u"]')
    result = run(client.probe, "json", path)
    assert [json.loads(line)[2] for line in result.out.splitlines()] == [
        4,
        '"\\/\b\f\n\r\t',
        "Aé€😀",
        "\x01",
        "éu",
    ]
