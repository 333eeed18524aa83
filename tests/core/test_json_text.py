"""JSON of strangers: read with limits on size, depth and digits, and refused in one line."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptoss_onnx.errors import PackageError
from gptoss_onnx.json_text import DEPTH_LIMIT, JSON_LIMIT, parse_json, printable, read_json_object

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[" * 100_000, f"nested more than {DEPTH_LIMIT} deep"),
        (b'{"a":' * 100_000, f"nested more than {DEPTH_LIMIT} deep"),
        (b'{"a": ' + b"1" * 5000 + b"}", "a number of 5000 digits"),
        (b"[NaN]", "NaN, which JSON does not have"),
        (b"[-Infinity]", "-Infinity, which JSON does not have"),
        (b"[1e999]", "beyond the range of a double"),
        (b'{"a": 1, "a": 2}', "'a' appears twice"),
        (b'["\\ud800"]', "surrogates not allowed"),
        (b'{"\xff": 1}', "can't decode byte"),
        (b"", "Expecting value"),
        (b"{}{}", "Extra data"),
        (b'["' + b"\\" * 10_000_000, "not JSON"),
        (b'"' * 10_000_001, "not JSON"),
        (b'{"\x1b[31m"', "not JSON"),
    ],
)
def test_what_is_refused(text: bytes, message: str) -> None:
    with pytest.raises(PackageError, match=message) as caught:
        parse_json(text, "file.json", PackageError)
    assert str(caught.value).startswith("file.json: not JSON (")
    assert printable(str(caught.value)) == str(caught.value)


def test_brackets_in_strings_are_no_depth() -> None:
    text = b'["' + b"[" * 1000 + b'", "\\"' + b"{" * 1000 + b'"]'
    assert parse_json(text, "file.json", PackageError) == ["[" * 1000, '"' + "{" * 1000]


@given(VALUES)
def test_what_python_writes_is_read(value: object) -> None:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    try:
        content = text.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return
    assert parse_json(content, "file.json", PackageError) == value


def test_objects_come_from_files_of_a_size(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text("[]")
    with pytest.raises(PackageError, match="found list, expected a JSON object"):
        read_json_object(path, PackageError)
    path.write_bytes(b" " * (JSON_LIMIT + 1))
    with pytest.raises(PackageError, match=f"found more than {JSON_LIMIT} bytes"):
        read_json_object(path, PackageError)
    with pytest.raises(PackageError, match="found a device, expected a regular file"):
        read_json_object(Path("/dev/zero"), PackageError)
    with pytest.raises(FileNotFoundError):
        read_json_object(tmp_path / "none", PackageError)
    with pytest.raises(PackageError, match="cannot be opened"):
        read_json_object(tmp_path / "a\0b", PackageError)


def test_control_characters_are_escaped() -> None:
    assert (
        printable("a\x1b[31m\r\n\t\x9b\u202e\u2028ä€😀")
        == "a\\x1b[31m\\r\\n\\t\\x9b\\u202e\\u2028ä€😀"
    )


def test_the_number_of_objects_and_lists_can_be_limited() -> None:
    for text in (b"[{},[{}]]", b'{"a":[{"[{":[]}]}'):
        assert parse_json(text, "x", PackageError, 4) == json.loads(text)
        with pytest.raises(PackageError, match="more than 3 objects and lists"):
            parse_json(text, "x", PackageError, 3)
