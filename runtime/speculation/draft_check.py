"""Refuse a draft model that another vocabulary makes useless, or worse."""

from typing import TYPE_CHECKING

from gptoss_onnx.added_tokens import TOKENIZER_LIMIT
from gptoss_onnx.errors import InputError
from gptoss_onnx.package import TOKENIZER_FILE, Package, read_own_file
from gptoss_onnx.runtime.arguments import shown

if TYPE_CHECKING:
    from gptoss_onnx.runtime.session import Session


def check_draft(session: "Session", draft: object) -> "Session":
    """Return `draft`; raises InputError unless it is a session whose package means the same by
    each token id.

    Their tokenizer files are compared where both have one: byte for byte, else what each text's id
    is. PackageError where one of them is damaged.
    """
    from gptoss_onnx.runtime.session import Session  # which imports this

    if not isinstance(draft, Session):
        raise InputError(f"draft: found {shown(draft)}, expected a Session or None")
    folders = f"{draft.package.folder} beside {session.package.folder}"
    if session.vocab != draft.vocab:
        raise InputError(
            f"draft: found a vocabulary of {draft.vocab} tokens, expected the model's "
            f"{session.vocab} ({folders})"
        )
    files = [_tokenizer_file(each.package) for each in (session, draft)]
    if None in files or files[0] == files[1]:
        return draft
    if session.tokenizer.ids != draft.tokenizer.ids:
        raise InputError(
            f"draft: found another tokenizer than the model's, expected the same ({folders})"
        )
    return draft


def _tokenizer_file(package: Package) -> bytes | None:
    try:
        return read_own_file(package.folder, TOKENIZER_FILE, TOKENIZER_LIMIT)
    except FileNotFoundError:
        return None
