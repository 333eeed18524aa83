"""SideFiles: a checkpoint's tokenizer, chat template and generation settings, wherever they lie."""

from pathlib import Path
from typing import Any

from gptoss_onnx.checkpoint.folder import CheckpointFolder
from gptoss_onnx.checkpoint.folder_kinds import GENERATION_CONFIG, TOKENIZER
from gptoss_onnx.errors import InputError


class SideFiles:
    """The side files of a checkpoint, or those of a tokenizer that was named in place of its own.

    A named folder gives the tokenizer and the chat template, and generation settings where the
    checkpoint has none. A named file is the tokenizer.json, and there is no chat template.
    """

    def __init__(self, own: CheckpointFolder, tokenizer: Path | None = None) -> None:
        """Look for the files.

        Args:
            own: the checkpoint's folder of them.
            tokenizer: a folder with a tokenizer.json, or such a file under any name; None for the
                checkpoint's own.

        Raises InputError where there is no such tokenizer, and CheckpointError where a file cannot
        be one.
        """
        self._own, self._named, self._file = own, own, TOKENIZER
        self._is_file = tokenizer is not None and not tokenizer.is_dir()
        if tokenizer is None:
            return
        self._named = CheckpointFolder(tokenizer.parent if self._is_file else tokenizer)
        self._file = tokenizer.name if self._is_file else TOKENIZER
        if self._named.find(self._file) is None:
            raise InputError(
                f"--tokenizer: found no {self._named.path / self._file}, expected a folder with a "
                f"{TOKENIZER}, or that file"
            )

    def path_of(self, name: str) -> Path | None:
        """Return the path of a file; None if there is none.

        Raises CheckpointError for what a checkpoint's files may not be, as `CheckpointFolder.find`.
        """
        place = self._place(name)
        return None if place is None else place[0].path / place[1]

    def holds(self, name: str) -> bool:
        """Say whether there is such a file, or the checkpoint's own file has its content."""
        if self._place(name) is not None:
            return True
        return self._named is self._own and self._own.holds(name)

    def read(self, name: str, limit: int) -> bytes | None:
        """Return the bytes of a file of at most `limit` bytes; None if there is none."""
        place = self._place(name)
        if place is None:  # or it is in the checkpoint's own file
            return self._own.read(name, limit) if self._named is self._own else None
        return place[0].read(place[1], limit)

    def read_json(self, name: str) -> dict[str, Any]:
        """Return the JSON object in a file.

        Raises CheckpointError if the file is not there or holds something else.
        """
        folder, found = self._place(name) or (self._own, name)
        return folder.read_json(found)

    def check_unchanged(self) -> None:
        """Raise CheckpointError where a file is not what it was when it was first looked at."""
        self._own.check_unchanged()
        self._named.check_unchanged()

    def _place(self, name: str) -> tuple[CheckpointFolder, str] | None:
        """Return the folder that a file is in, and its name there."""
        own, named = (self._own, name), (self._named, name)
        if name == TOKENIZER:
            places = [(self._named, self._file)]
        elif name == GENERATION_CONFIG:
            places = [own] if self._is_file else [own, named]
        else:  # what goes with a tokenizer.json
            places = [] if self._is_file else [named]
        return next((place for place in places if place[0].find(place[1]) is not None), None)
