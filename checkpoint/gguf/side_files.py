"""The side files of a GGUF checkpoint: those beside it, or tokenizer and template of its own."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from gptoss_onnx.added_tokens import TOKENIZER_LIMIT
from gptoss_onnx.checkpoint.folder import CheckpointFolder
from gptoss_onnx.checkpoint.folder_kinds import TOKENIZER
from gptoss_onnx.checkpoint.gguf.header import Value
from gptoss_onnx.checkpoint.gguf.tokenizer import ADVICE, MODEL, TEMPLATE, tokenizer_json
from gptoss_onnx.errors import CheckpointError
from gptoss_onnx.tokenizer_file import load_tokenizer

CHAT_TEMPLATE = "chat_template.jinja"


class GgufSideFiles(CheckpointFolder):
    """Where there is a tokenizer.json beside the file, the folder's side files are the
    checkpoint's. Otherwise tokenizer and chat template are those in the file, which have no path.
    """

    def __init__(self, folder: CheckpointFolder, file: str, metadata: Mapping[str, Value]) -> None:
        super().__init__(folder.path)
        self._file, self._metadata = file, metadata

    def find(self, name: str) -> Path | None:
        """See CheckpointFolder: the path of what lies beside, None for what is in the file."""
        return super().find(name) if self._is_beside else None

    def holds(self, name: str) -> bool:
        """See CheckpointFolder; what is in the file is not built for that."""
        if self._is_beside:
            return super().holds(name)
        return name == TOKENIZER or (name == CHAT_TEMPLATE and TEMPLATE in self._metadata)

    def read(self, name: str, limit: int) -> bytes | None:
        """See CheckpointFolder: the bytes of a side file, wherever it is."""
        return super().read(name, limit) if self._is_beside else self._inside.get(name)

    @cached_property
    def _is_beside(self) -> bool:
        return MODEL not in self._metadata or super().find(TOKENIZER) is not None

    @cached_property
    def _inside(self) -> dict[str, bytes]:
        """What the file holds, by the name of a side file."""
        content = tokenizer_json(self._metadata, self._file)
        if content is None:
            return {}
        if len(content) > TOKENIZER_LIMIT:
            raise CheckpointError(f"{self._file}: found a tokenizer of {len(content)} bytes")
        load_tokenizer(content, Path(self._file), ADVICE, CheckpointError)
        template = self._metadata.get(TEMPLATE)
        own = {TOKENIZER: content}
        return own | ({CHAT_TEMPLATE: template.encode()} if isinstance(template, str) else {})
