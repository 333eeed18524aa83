"""Read the ONNX file of a package, which may be a stranger's, as protocol buffers."""

from collections.abc import Iterator, MutableSequence
from pathlib import Path

import onnx
from google.protobuf.message import (  # type: ignore[import-untyped]  # ships no stubs
    DecodeError,
    Message,
)

from gptoss_onnx.errors import PackageError
from gptoss_onnx.files import read_file
from gptoss_onnx.runtime.graph_file import GRAPH_LIMIT


def read_model(path: Path) -> onnx.ModelProto:
    """Return a model without its external data.

    Raises PackageError where it is larger than 8 MB, is no ONNX model, or holds text that is not
    Unicode, which protocol buffers give as bytes.
    """
    try:
        model = onnx.load_model_from_string(read_file(path, GRAPH_LIMIT, PackageError))
        broken = next(_not_unicode(model), None)
        if broken is not None:
            raise ValueError(f"a {broken} is not Unicode")
    except (DecodeError, ValueError) as error:
        raise PackageError(
            f"{path}: not an ONNX model ({error}); export the package again"
        ) from error
    return model


def _not_unicode(message: Message) -> Iterator[str]:
    """Yield the name of every text field, of this message or in it, that is not Unicode."""
    for field, value in message.ListFields():
        values = value if isinstance(value, MutableSequence) else (value,)
        if field.type == field.TYPE_STRING:
            yield from (field.name for text in values if isinstance(text, bytes))
        elif field.type == field.TYPE_MESSAGE:
            for part in values:
                yield from _not_unicode(part)
