"""Origin: what is known of the checkpoint that a package was made from, its licence above all.

A card of the checkpoint (README.md) and its licence file are read as what strangers wrote: bounded,
and nothing but a few plain values is taken from them.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml  # type: ignore[import-untyped]  # ships no stubs

from gptoss_onnx.checkpoint.folder import CheckpointFolder
from gptoss_onnx.hub.markdown import bounded
from gptoss_onnx.package import read_own_file

CARD_FILE = "README.md"
LICENCE_FILE = "LICENSE"
LIBRARY = "gptoss-onnx"  # the library_name by which a card of ours is known
OTHER = "other"  # the hub's word for a licence without a name in its list

_LIMIT = 1_000_000  # bytes of a card, or of a licence
_FRONT_LIMIT = 64_000  # letters of the part in YAML
_FRONT = re.compile(r"\A---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,60}")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_LICENCE_NAMES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE")


@dataclass(frozen=True)
class Origin:
    """Where a package is from, as far as it is known.

    Attributes:
        base_model: the checkpoint's id on the hub.
        licence: the licence's identifier on the hub; None if it is not known.
        licence_name: its name, where the identifier is `other`.
        licence_link: where its text is.
        licence_text: the content of the checkpoint's licence file.
    """

    base_model: str | None = None
    licence: str | None = None
    licence_name: str | None = None
    licence_link: str | None = None
    licence_text: bytes | None = None

    @classmethod
    def of_checkpoint(cls, source: str, folder: Path) -> Self:
        """Look at a checkpoint's own card and licence file.

        Args:
            source: what the user named, a folder or a hub id.
            folder: where the checkpoint lies; of a GGUF file, the file.

        Raises CheckpointError for files that are too large, no files, or outside of the folder.
        """
        folder = folder if folder.is_dir() else folder.parent
        files = CheckpointFolder(folder)
        said = front_matter(files.read(CARD_FILE, _LIMIT) or b"")
        texts = (files.read(name, _LIMIT) for name in _LICENCE_NAMES)
        text = next((content for content in texts if content is not None), None)
        found = cls(_base_model(source, folder), *_licence(said), licence_text=text)
        if found.licence is None and text is not None:
            return cls(found.base_model, OTHER, "see the file LICENSE", LICENCE_FILE, text)
        return found

    @classmethod
    def of_card(cls, content: bytes, licence_text: bytes | None) -> Self:
        """Return what an earlier card of ours says; nothing if it is another's."""
        said = front_matter(content)
        if said.get("library_name") != LIBRARY:
            return cls()
        base = said.get("base_model")
        known = isinstance(base, str) and _HUB_ID.fullmatch(base) is not None
        return cls(base if known else None, *_licence(said), licence_text=licence_text)


def front_matter(content: bytes) -> dict[str, Any]:
    """Return what the YAML at the beginning of a card says; {} if there is none that can be read.

    It holds no more than `_FRONT_LIMIT` letters and no aliases, with which YAML can say a lot in a
    few letters.
    """
    match = _FRONT.match(content[:_LIMIT].decode("utf-8", "replace").lstrip("\ufeff"))
    if match is None or len(match[1]) > _FRONT_LIMIT:
        return {}
    try:
        events = yaml.parse(match[1], Loader=yaml.SafeLoader)
        if any(isinstance(event, yaml.AliasEvent) for event in events):
            return {}
        found = yaml.safe_load(match[1])
    except (yaml.YAMLError, ValueError, RecursionError):  # ValueError: dates that are none
        return {}
    return found if isinstance(found, dict) else {}


def read_beside(folder: Path, name: str) -> bytes | None:
    """Return the card or the licence in a package's folder; None if there is none.

    Raises PackageError for one that is too large, no file, or outside of the folder.
    """
    try:
        return read_own_file(folder, name, _LIMIT)
    except FileNotFoundError:
        return None


def is_ours(content: bytes) -> bool:
    """Say whether a card is one that this project wrote."""
    return front_matter(content).get("library_name") == LIBRARY


def _licence(said: dict[str, Any]) -> tuple[str | None, str | None, str | None]:
    """Return identifier, name and link of a licence as a card says them."""
    licence = said.get("license")
    if not isinstance(licence, str) or _LICENCE.fullmatch(licence) is None:
        return None, None, None
    name, link = (said.get(f"license_{key}") for key in ("name", "link"))
    return (
        licence,
        bounded(name) if isinstance(name, str) and name.strip() else None,
        link if isinstance(link, str) and _is_link(link) else None,
    )


def _is_link(text: str) -> bool:
    return text == LICENCE_FILE or re.fullmatch(r"https://[\w./%~-]{1,300}", text) is not None


def _base_model(source: str, folder: Path) -> str | None:
    """Return the hub id of a checkpoint: what was named, or what its place in the cache says."""
    if _HUB_ID.fullmatch(source) is not None and not Path(source).exists():
        return source
    for place in (folder, *folder.parents):
        kind, _, name = place.name.partition("--")
        owner, _, repository = name.partition("--")
        if kind == "models" and owner and repository:
            found = f"{owner}/{repository}"
            return found if _HUB_ID.fullmatch(found) is not None else None
    return None
