"""Find the folder of a checkpoint: a path as given, or a hub id in the Hugging Face cache.

Nothing here imports torch, so that a missing checkpoint is reported at once.
"""

import logging
import os
import re
from pathlib import Path
from types import ModuleType

from gptoss_onnx.checkpoint.folder_kinds import CONFIG, METAL, ORIGINAL
from gptoss_onnx.checkpoint.gguf.parts import is_gguf
from gptoss_onnx.errors import CheckpointError, InputError, RuntimeUnavailable
from gptoss_onnx.extras import install_command
from gptoss_onnx.files import read_file
from gptoss_onnx.json_text import printable

_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")
# each part of a branch or tag, and a snapshot's name
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_REFERENCE_BYTES = 200  # of refs/main, which holds a commit's name
# What an export reads: no pickles, and nothing that holds the same weights once more (original/ and
# metal/ of gpt-oss, consolidated.safetensors of Mistral).
_WANTED = ["*.json", "*.safetensors", "*.jinja"]
_UNWANTED = ["*/*", "consolidated*"]
logger = logging.getLogger(__name__)


def locate(
    source: str | os.PathLike[str],
    *,
    revision: str | None = None,
    download: bool = False,
    cache_dir: Path | None = None,
) -> Path:
    """Return the checkpoint's folder for a path, a cached repository's folder, or a hub id
    (`openai/gpt-oss-20b`); of a GGUF file, the file.

    Args:
        source: what the user named.
        revision: branch, tag or commit of the repository; None is `main`.
        download: fetch what the cache lacks; nothing is downloaded otherwise.
        cache_dir: where hub ids are looked up; huggingface_hub's own cache when None.

    Raises:
        CheckpointError: there is no such checkpoint; the message says how to get it.
        InputError: `revision` or `download` with a folder, which has neither, or a revision that
            cannot be one.
        RuntimeUnavailable: a hub id, and huggingface_hub is not installed.
    """
    name = os.fspath(source)
    path = Path(name)
    _check_revision(revision)
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except OSError as error:
        raise CheckpointError(
            f"{printable(name)[:300]}: no checkpoint ({error.strerror})"
        ) from error
    if is_folder:
        return _local(path, revision, download)
    if exists and path.name == "model.bin":
        raise CheckpointError(f"{path}: {METAL}")
    if exists and is_gguf(path):
        _refuse_hub_options(path, revision, download)
        return path
    if exists:
        raise CheckpointError(
            f"{path}: found a file, expected the checkpoint's folder in Hugging Face layout "
            "(config.json and *.safetensors), or a GGUF file"
        )
    if not is_hub_id(name):
        raise CheckpointError(
            f"{printable(name)}: no such folder, expected a checkpoint folder or a hub id "
            "(owner/name)"
        )
    return _from_hub(name, revision, download, cache_dir)


def is_hub_id(name: str) -> bool:
    """Say whether a name could be that of a repository of the hub, `owner/name`."""
    return _HUB_ID.fullmatch(name) is not None


def _local(folder: Path, revision: str | None, download: bool) -> Path:
    if (folder / "snapshots").is_dir() and not download:
        return _original(_snapshot(folder, revision or "main"))
    _refuse_hub_options(folder, revision, download)
    return _original(folder)


def _original(folder: Path) -> Path:
    """Return `original/` of a repository that has no other weights, else the folder itself."""
    inner = folder / ORIGINAL
    if not (inner / CONFIG).exists() or any(folder.glob("*.safetensors*")):
        return folder
    logger.info("%s: no weights beside original/: reading those, in OpenAI's own layout", folder)
    return _inside(inner, folder, folder)


def _refuse_hub_options(path: Path, revision: str | None, download: bool) -> None:
    """Raise InputError for options that go with a hub id, not with what lies at `path`."""
    for option, given in (("--download", download), ("--revision", revision is not None)):
        if given:
            what = "folder" if path.is_dir() else "file"
            raise InputError(
                f"{option}: found with the {what} {path}, expected a hub id (owner/name)"
            )


def _from_hub(name: str, revision: str | None, download: bool, cache_dir: Path | None) -> Path:
    hub = _load_hub(name)
    cache = Path(hub.constants.HF_HUB_CACHE) if cache_dir is None else cache_dir
    repository = cache / f"models--{name.replace('/', '--')}"
    if not download and not repository.is_dir():
        raise CheckpointError(
            f"{name}: no such folder, and not in the Hugging Face cache {cache}; "
            f"{_how_to_get(name, revision)}"
        )
    if not download:
        # says more than the library does, and trusts no name in refs/
        _snapshot(repository, revision or "main")
    try:
        found = hub.snapshot_download(
            name,
            revision=revision,
            cache_dir=cache,
            local_files_only=not download,
            allow_patterns=_WANTED,
            ignore_patterns=_UNWANTED,
        )
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        if download:
            raise CheckpointError(f"{name}: cannot be downloaded ({printable(reason)})") from error
        raise CheckpointError(
            f"{repository}: incomplete ({printable(reason)}); {_how_to_get(name, revision)}"
        ) from error
    return _inside(Path(found), repository / "snapshots", repository)


def _snapshot(repository: Path, revision: str) -> Path:
    """Return the snapshot of a cached repository that a commit, or a branch or tag of `refs/`,
    names.
    """
    name = repository.name.removeprefix("models--").replace("--", "/", 1)
    again = _how_to_get(name, None if revision == "main" else revision)
    commit = (
        revision if _COMMIT.fullmatch(revision) else _read_reference(repository, revision, again)
    )
    folder = repository / "snapshots" / commit
    if not _REVISION.fullmatch(commit) or not folder.is_dir():
        raise CheckpointError(
            f"{repository}: refs/{revision} names {printable(repr(commit))}, found no such "
            f"snapshot; {again}"
        )
    return _inside(folder, repository / "snapshots", repository)


def _read_reference(repository: Path, revision: str, again: str) -> str:
    reference = _inside(repository / "refs" / revision, repository, repository)
    try:
        return (
            read_file(reference, _REFERENCE_BYTES, CheckpointError)
            .decode("ascii", "backslashreplace")
            .strip()
        )
    except FileNotFoundError:
        revisions = sorted(printable(entry.name) for entry in (repository / "snapshots").iterdir())[
            :5
        ]
        choice = (
            f"pass one of the snapshot folders instead ({', '.join(revisions)}), or "
            if revisions
            else ""
        )
        raise CheckpointError(
            f"{repository}: no refs/{revision}, expected it to name a snapshot; {choice}{again}"
        ) from None


def _inside(path: Path, folder: Path, repository: Path) -> Path:
    """Return `path`; raises CheckpointError where links lead it out of `folder`."""
    if not path.resolve().is_relative_to(folder.resolve()):
        raise CheckpointError(
            f"{repository}: {path} leads to {path.resolve()}, outside of {folder}"
        )
    return path


def _check_revision(revision: str | None) -> None:
    if revision is not None and not all(_REVISION.fullmatch(part) for part in revision.split("/")):
        raise InputError(
            f"--revision: found {printable(revision)!r}, expected a branch, a tag or a commit"
        )


def _how_to_get(name: str, revision: str | None) -> str:
    return f"pass --download, or download it with: hf download {name}" + (
        f" --revision {revision}" if revision is not None else ""
    )


def _load_hub(name: str) -> ModuleType:
    try:
        import huggingface_hub
        import huggingface_hub.constants
    except ImportError as error:
        raise RuntimeUnavailable(
            f"{name}: no such folder, and a hub id needs huggingface_hub, which is not installed: "
            f"{install_command('export')}"
        ) from error
    return huggingface_hub
