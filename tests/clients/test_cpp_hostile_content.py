"""Weight files and golden vectors of strangers in the C++ client: refused in one line."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from support.cpp_client import Client, Limits, change_manifest

pytestmark = [pytest.mark.cpp, pytest.mark.clients]

DEEP = "[" * 100_000
LARGE = 9_223_372_036_854_775_807


def with_header(header: bytes, length: int | None = None) -> bytes:
    """A safetensors file of this header and 16 bytes of data."""
    return struct.pack("<Q", len(header) if length is None else length) + header + bytes(16)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "0 bytes and a header of 0, expected a safetensors file"),
        (b"\x01\x02", "2 bytes and a header of"),
        (with_header(b""), "a header of 0, expected"),
        (with_header(b"{}", 2**64 - 1), "a header of 18446744073709551615, expected"),
        (with_header(b"{}", 17_000_000), "a header of 17000000, expected"),
        (with_header(DEEP.encode()), "100 levels"),
        (with_header(b"[]"), "found an array, expected an object"),
        (with_header(b'{"a":{}}'), "a/data_offsets: found nothing"),
        (with_header(b'{"a":{"data_offsets":[0,-1]}}'), "data_offsets/1: found -1"),
        (
            with_header(b'{"a":{"data_offsets":[0,17]}}'),
            "data_offsets/1: found 17, expected 0 to 16",
        ),
        (with_header(b'{"a":{"data_offsets":[9,8]}}'), "expected two, the second not smaller"),
        (with_header(b'{"a":{"data_offsets":[0,8,9]}}'), "expected two, the second not smaller"),
        (with_header(b'{"a":{"data_offsets":[0,8]},"a":{}}'), 'once the key "a"'),
        (with_header(b"{}"), "expected one tensor, or a part of one, of"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_headers_of_weights(client: Client, spoilt: Path, content: bytes, line: str) -> None:
    (spoilt / "model.safetensors").write_bytes(content)
    change_manifest(spoilt, "weights", "mode", value="copy")
    change_manifest(spoilt, "weights", "files", 0, "size", value=len(content))
    assert line in client.refused(spoilt)


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        (("sampled_indices", 0), -1, "sampled_indices/0: found -1, expected 0 to 2047"),
        (("sampled_indices", 0), 2048, "sampled_indices/0: found 2048, expected 0 to 2047"),
        (("cases",), [], "cases: found 0, expected 1 to"),
        (("cases", 0, "token_ids"), [], "prompt: found no tokens"),
        (("cases", 0, "token_ids"), [1] * 2000, "capacity: found 2064, expected 1 to 1024"),
        (("cases", 0, "token_ids", 0), LARGE, "token_ids/0: found 9223372036854775807"),
        (("cases", 0, "greedy"), [], "greedy: found no tokens"),
        (("cases", 0, "positions", 0), 1000, "positions: found 1000"),
        (("cases", 0, "positions", 0), LARGE, "positions/0: found 9223372036854775807"),
        (("cases", 0, "positions"), [0] * 2000, "positions: found 2000, expected at most"),
        (("cases", 0, "positions"), [1, 1], "positions: found 1, expected"),
        (("cases", 0, "top_indices", 0, 0), -1, "top_indices/0/0: found -1"),
        (("cases", 0, "top_indices"), [], "top_indices: found 0 elements, expected more than 0"),
        (("cases", 0, "top_logits", 0), [], "top_logits/0: found 0, expected 64 logits"),
        (("cases", 0, "top_logits", 0, 0), None, "top_logits/0/0: found null, expected a number"),
        (("cases", 0, "logsumexp"), [1], "logsumexp: found 1, expected"),
        (("cases", 0, "name"), 7, "name: found an integer, expected a string"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_golden_vectors_that_make_no_sense(
    client: Client, spoilt: Path, path: tuple[str | int, ...], value: Any, line: str
) -> None:
    file = spoilt / "golden" / "golden.json"
    golden = json.loads(file.read_text())
    place = golden
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    file.write_text(json.dumps(golden))
    result = client.run(spoilt, "--verify", limits=Limits())
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert line in result.err
