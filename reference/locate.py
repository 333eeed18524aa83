"""Find the folder of a checkpoint: a path as given, or a hub id in the local Hugging Face cache."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from gptoss_onnx.errors import CheckpointError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def locate(source: str | os.PathLike[str], cache_dir: Path | None = None) -> Path:
    """Return the checkpoint's folder for a path, a cached repository or a hub id (`openai/gpt-oss-20b`).

    A hub id means the revision that `refs/main` names in `cache_dir` (the user's cache when None); nothing
    is downloaded. Raises CheckpointError when there is no such folder, with the command that downloads it.
    """
    path = Path(source)
    if path.is_dir():
        return _snapshot(path) if (path / "snapshots").is_dir() else path
    if path.is_file():
        kind = "GGUF is not read" if path.suffix == ".gguf" else "found a file"
        raise CheckpointError(
            f"{path}: {kind}, expected the checkpoint's folder in Hugging Face layout (config.json and *.safetensors)"
        )
    name = os.fspath(source)
    if not _HUB_ID.fullmatch(name):
        raise CheckpointError(f"{name}: no such folder, expected a checkpoint folder or a hub id (owner/name)")
    cache = hub_cache(os.environ) if cache_dir is None else cache_dir
    repository = cache / f"models--{name.replace('/', '--')}"
    if not repository.is_dir():
        raise CheckpointError(
            f"{name}: no such folder, and not in the Hugging Face cache {cache}; download it with: hf download {name}"
        )
    return _snapshot(repository)


def hub_cache(environment: Mapping[str, str]) -> Path:
    """Return the Hugging Face cache that these environment variables choose; huggingface_hub's own rules."""
    for key in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if environment.get(key):
            return Path(environment[key]).expanduser()
    if environment.get("HF_HOME"):
        return Path(environment["HF_HOME"]).expanduser() / "hub"
    base = environment.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "huggingface" / "hub"


def _snapshot(repository: Path) -> Path:
    """The snapshot that `refs/main` of a cached repository names."""
    again = f"download it with: hf download {repository.name.removeprefix('models--').replace('--', '/', 1)}"
    reference = repository / "refs" / "main"
    try:
        revision = reference.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        revisions = sorted(entry.name for entry in (repository / "snapshots").glob("*"))
        choice = f"pass one of the snapshot folders instead ({', '.join(revisions)}), or " if revisions else ""
        raise CheckpointError(f"{repository}: no refs/main, expected it to name a snapshot; {choice}{again}") from None
    folder = repository / "snapshots" / revision
    if not revision or not folder.is_dir():
        raise CheckpointError(f"{repository}: refs/main names {revision!r}, found no such snapshot; {again}")
    return folder
