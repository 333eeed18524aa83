"""Write a folder so that an interruption at any moment leaves the old one or the new one, never
half of either.
"""

import ctypes
import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gptoss_onnx.errors import PackageError
from gptoss_onnx.manifest import MANIFEST_NAME, STAGING_SUFFIX

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


@contextmanager
def staged_folder(output: Path, force: bool) -> Iterator[Path]:
    """Yield an empty temporary sibling of `output` to fill; rename it to `output` when the block
    succeeds.

    The sibling's name ends in `.partial`, and no reader opens such a folder as a package. When the
    block fails, it is removed. With `force` an existing package is exchanged for the new one in one
    step where the system can (Linux), then deleted.

    Raises:
        PackageError: `output` exists and `force` is not set, or `output` exists and is not a
            package; or the file system refuses (full disk, no permission).
    """
    check_output(output, force)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(
            tempfile.mkdtemp(prefix=f".{output.name}.", suffix=STAGING_SUFFIX, dir=output.parent)
        )
        try:
            # mkdtemp's 0700 would lock other users out of the finished package
            staging.chmod(0o755)
            yield staging
            _sync(staging)
            check_output(output, force)
            _put_in_place(staging, output)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        raise PackageError(
            f"{output}: cannot write the package: {error.strerror or error}"
        ) from error


def check_output(output: Path, force: bool) -> None:
    """Refuse to overwrite anything that is there, except a package (or an empty folder) when
    `force` is set.
    """
    above = next(parent for parent in output.parents if parent.exists())
    if not above.is_dir():
        raise PackageError(f"{output}: {above} is a file, so no folder can be made below it")
    if not output.exists() and not output.is_symlink():
        return
    if output.is_dir() and not any(output.iterdir()):
        return
    if not (output / MANIFEST_NAME).is_file():
        raise PackageError(
            f"{output}: exists and is not a package: it is left alone; choose another output folder"
        )
    if not force:
        raise PackageError(
            f"{output}: exists; choose another output folder, or pass --force to replace this "
            "package"
        )


def _put_in_place(staging: Path, output: Path) -> None:
    """Rename `staging` to `output`; an old `output` ends up under the name of `staging`, to be
    deleted.
    """
    if not output.is_dir() or not any(output.iterdir()):
        staging.replace(output)  # replaces an empty folder too
        return
    if _exchange(staging, output):
        return
    aside = staging.with_name(staging.name + ".old")
    output.rename(aside)
    staging.rename(output)
    shutil.rmtree(aside)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders atomically; False where the system or the file system cannot."""
    if not sys.platform.startswith("linux"):
        return False
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    if renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS):
        return False
    raise OSError(code, os.strerror(code), str(other))


def _sync(folder: Path) -> None:
    """Flush the folder's own entries, so that the rename cannot reach the disk before them."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
