"""Upload a package to a repository of the Hugging Face hub, in one commit: whole or not at all."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from gptoss_onnx.errors import GptOssError, InputError, RuntimeUnavailable
from gptoss_onnx.hub.layout import Upload, uploads
from gptoss_onnx.hub.markdown import bounded
from gptoss_onnx.hub.origin import CARD_FILE, is_ours
from gptoss_onnx.runtime import Package

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_REVISION = re.compile(r"[A-Za-z0-9][\w./-]{0,199}")
_TOKEN = re.compile(r"hf_\w+|Bearer \S+")


@dataclass(frozen=True)
class Pushed:
    """What a push does, or has done.

    Attributes:
        files: what goes into the repository.
        with_root: whether they go to its root as well, because it is the package's own.
        url: of the commit; None before there is one.
    """

    files: tuple[Upload, ...]
    with_root: bool
    url: str | None = None

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(upload.size for upload in self.files)


def push(
    package: Package,
    repository: str,
    *,
    folder: str = "onnx",
    revision: str | None = None,
    private: bool = False,
    dry_run: bool = False,
) -> Pushed:
    """Upload a package; the repository is made if there is none.

    The bytes of linked weights are read where they lie. Root files of a repository whose card is
    not one of ours stay as they are: only `folder` is written.

    Args:
        package: as `runtime.open_package` returns it: its files were checked.
        repository: OWNER/NAME.
        folder: of the repository, for the package.
        revision: a branch, which is made if there is none; None for main.
        private: of a repository that is made.
        dry_run: only say what would be uploaded, to a repository that is taken for a new one;
            nothing is asked of the hub.

    Raises InputError for a name that is none, PackageError as `uploads`, RuntimeUnavailable where
    the hub refuses, with what it said. No message contains the token.
    """
    _check("repository", repository, _REPOSITORY, "OWNER/NAME")
    if revision is not None:
        _check("--revision", revision, _REVISION, "the name of a branch")
    if dry_run:
        return Pushed(tuple(uploads(package, folder, with_root=True)), with_root=True)
    from huggingface_hub import CommitOperationAdd, HfApi

    hub = HfApi()
    with _errors(repository):
        # the files first: a package that cannot be read makes no repository
        uploads(package, folder, with_root=True)
        hub.create_repo(repository, private=private, exist_ok=True)
        if revision is not None:
            hub.create_branch(repository, branch=revision, exist_ok=True)
        with_root = _is_own(hub, repository, revision)
        files = tuple(uploads(package, folder, with_root))
        commit = hub.create_commit(
            repository,
            [CommitOperationAdd(it.path, _content(it)) for it in files],
            commit_message=f"Upload an ONNX package of {package.manifest.exporter}",
            revision=revision,
        )
    return Pushed(files, with_root, commit.commit_url)


def _is_own(hub: "HfApi", repository: str, revision: str | None) -> bool:
    """Say whether a repository has no card yet, or one of ours."""
    if not hub.file_exists(repository, CARD_FILE, revision=revision):
        return True
    with TemporaryDirectory() as folder:
        found = hub.hf_hub_download(repository, CARD_FILE, revision=revision, local_dir=folder)
        return is_ours(Path(found).read_bytes())


def _content(upload: Upload) -> bytes | str:
    return upload.content if isinstance(upload.content, bytes) else str(upload.content)


def _check(what: str, text: str, pattern: re.Pattern[str], expected: str) -> None:
    if pattern.fullmatch(text) is None or ".." in text:
        raise InputError(f"{what}: found {bounded(text, 100)!r}, expected {expected}")


@contextmanager
def _errors(repository: str) -> Iterator[None]:
    """Turn what the hub's library raises into one line, without the token."""
    try:
        yield
    except GptOssError:
        raise
    except Exception as error:
        said = bounded(_TOKEN.sub("…", str(error)) or type(error).__name__)
        raise RuntimeUnavailable(
            f"{repository}: cannot be uploaded to ({said}); `hf auth login` gives this machine a "
            "token that may write there"
        ) from error
