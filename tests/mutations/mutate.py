"""Spoil one thing of a folder, chosen by a seed: what a download, a disk or a stranger may have
done to it.
"""

import json
import os
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

# What a reader may not expect where a value was.
VALUES: tuple[str, ...] = (
    "null",
    "true",
    "-1",
    "0",
    "1e400",
    "NaN",
    "1.5",
    str(2**31),
    str(2**63),
    "9" * 5000,
    '""',
    '"\\u0000"',
    '"\\ud800"',
    '"\\u001b[31m"',
    '"../../etc/passwd"',
    '"/etc/passwd"',
    '"' + "x" * 100_000 + '"',
    "[]",
    "{}",
    "[" * 100_000,
    "[[1],[2,[3]]]",
    '{"a": {"b": null}}',
)
TEMPLATES: tuple[str, ...] = (
    "{% for i in range(10 ** 9) %}x{% endfor %}",
    "{{ 'a' * 10 ** 10 }}",
    "{{ 9 ** 9 ** 9 }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{{ messages[0].__class__.__mro__ }}",
    "{{ ''|center(10 ** 9) }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ raise_exception('\x1b[31mno\nmore') }}",
    "{% include '/etc/passwd' %}",
    "{{ undefined.nothing }}",
    "{% for",
)
REPLACEMENTS = (
    "empty",
    "fifo",
    "folder",
    "gone",
    "link out",
    "link to zero",
    "link to itself",
    "directory above",
)


def spoil(folder: Path, seed: int) -> str:
    """Spoil one thing in `folder`; return what was done, in words."""
    draw = random.Random(seed)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    # Small files decide more than large ones; JSON most of all.
    path = draw.choices(files, [3 if path.suffix == ".json" else 2 for path in files])[0]
    kinds = _KINDS.get(path.suffix, (_bytes, _bytes, _cut, _replace))
    return f"{path.relative_to(folder)}: {draw.choice(kinds)(path, draw)}"


Spoil = Callable[[Path, random.Random], str]


def _bytes(path: Path, draw: random.Random) -> str:
    """Change a few bytes, most of them near the beginning, where formats have their heads."""
    content = bytearray(path.read_bytes())
    if not content:
        return "nothing, it is empty"
    end = draw.choice((16, 4096, len(content)))
    places = [draw.randrange(min(end, len(content))) for _ in range(draw.choice((1, 1, 2, 8)))]
    for place in places:
        content[place] = draw.choice(
            (0, 255, draw.randrange(256), content[place] ^ 1 << draw.randrange(8))
        )
    _write(path, bytes(content))
    return f"bytes {places} changed"


def _cut(path: Path, draw: random.Random) -> str:
    content = path.read_bytes()
    size = draw.choice((draw.randrange(len(content) + 1), max(len(content) - 1, 0)))
    longer = draw.random() < 0.3
    _write(path, content + content[:size] if longer else content[:size])
    return f"{size} bytes {'added' if longer else 'left'}"


def _replace(path: Path, draw: random.Random) -> str:
    what = draw.choice(REPLACEMENTS)
    path.unlink()
    if what == "empty":
        path.write_bytes(b"")
    elif what == "fifo":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    elif what != "gone":
        targets = {
            "link out": "/etc/passwd",
            "link to zero": "/dev/zero",
            "link to itself": path.name,
        }
        path.symlink_to(targets.get(what, ".."))
    return f"replaced: {what}"


def _value(path: Path, draw: random.Random) -> str:
    """Replace a value of a JSON document by a text that is no such value."""
    document = json.loads(path.read_bytes())
    place = draw.choice(list(_places(document, 400)))
    text = draw.choice(VALUES)
    _write(path, _with(document, place, text).encode())
    return f"{place} is {text[:40]}"


def _key(path: Path, draw: random.Random) -> str:
    """Take a key of a JSON object away, or give it twice."""
    document = json.loads(path.read_bytes())
    objects = [at for at in ((), *_places(document, 400)) if isinstance(_at(document, at), dict)]
    chosen = _at(document, draw.choice(objects))
    if not chosen:
        return "nothing, it has no keys"
    key = draw.choice(sorted(chosen))
    if draw.random() < 0.5:
        del chosen[key]
        _write(path, json.dumps(document).encode())
        return f"without {key!r}"
    text = json.dumps(document).replace(
        json.dumps(key) + ":", f"{json.dumps(key)}: 1, {json.dumps(key)}:", 1
    )
    _write(path, text.encode())
    return f"{key!r} twice"


def _header(path: Path, draw: random.Random) -> str:
    """Change the header of a safetensors file as JSON, and its length with it."""
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    document = json.loads(content[8 : 8 + length])
    place = draw.choice(list(_places(document, 4000)))
    text = draw.choice(VALUES)
    header = _with(document, place, text).encode()
    _write(path, struct.pack("<Q", len(header)) + header + content[8 + length :])
    return f"header: {place} is {text[:40]}"


def _length(path: Path, draw: random.Random) -> str:
    content = path.read_bytes()
    length = draw.choice((0, 1, len(content), 2**31, 2**63, 2**64 - 1))
    _write(path, struct.pack("<Q", length) + content[8:])
    return f"header of {length} bytes"


def _template(path: Path, draw: random.Random) -> str:
    text = draw.choice(TEMPLATES)
    _write(path, text.encode())
    return f"is {text}"


_KINDS: dict[str, tuple[Spoil, ...]] = {
    ".json": (_value, _value, _value, _key, _bytes, _cut, _replace),
    ".safetensors": (_header, _header, _length, _bytes, _bytes, _cut, _replace),
    ".jinja": (_template, _template, _bytes, _cut, _replace),
}


def _write(path: Path, content: bytes) -> None:
    path.unlink()  # it may be a hard link
    path.write_bytes(content)


def _places(document: Any, limit: int) -> list[tuple[Any, ...]]:
    """Return the paths to the values of a document, breadth first and `limit` at most."""
    found: list[tuple[Any, ...]] = [()]
    for place in found:
        value = _at(document, place)
        keys = (
            value
            if isinstance(value, dict)
            else range(len(value))
            if isinstance(value, list)
            else ()
        )
        found.extend((*place, key) for key in keys)
        if len(found) > limit:
            break
    return found[1:limit] or [()]


def _at(document: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        document = document[key]
    return document


def _with(document: Any, place: tuple[Any, ...], text: str) -> str:
    """Return the document as text, with `text` for the value at a place: it need not be JSON."""
    if not place:
        return text
    mark = "<the value that is spoilt>"
    _at(document, place[:-1])[place[-1]] = mark
    return json.dumps(document).replace(json.dumps(mark), text)
