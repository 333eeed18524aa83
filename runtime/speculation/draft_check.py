"""Refuse a draft model that another vocabulary makes useless, or worse."""

from gptoss_onnx.added_tokens import TOKENIZER_LIMIT
from gptoss_onnx.errors import InputError
from gptoss_onnx.package import TOKENIZER_FILE, Package, read_own_file
from gptoss_onnx.runtime.text import Tokenizer


def check_draft(package: Package, draft: Package) -> None:
    """Raise InputError unless both packages mean the same by each token id.

    Their tokenizer files are compared where both have one: byte for byte, else what each text's id
    is. PackageError where one of them is damaged.
    """
    folders = f"({draft.folder} beside {package.folder})"
    sizes = draft.manifest.vocab_size, package.manifest.vocab_size
    if sizes[0] != sizes[1]:
        raise InputError(
            f"draft: found a vocabulary of {sizes[0]} tokens, expected the model's {sizes[1]} "
            f"{folders}"
        )
    files = [_tokenizer_file(each) for each in (package, draft)]
    if None in files or files[0] == files[1]:
        return
    ids = [Tokenizer.open(each.folder).ids for each in (package, draft)]
    if ids[0] != ids[1]:
        raise InputError(
            f"draft: found another tokenizer than the model's, expected the same {folders}"
        )


def _tokenizer_file(package: Package) -> bytes | None:
    try:
        return read_own_file(package.folder, TOKENIZER_FILE, TOKENIZER_LIMIT)
    except FileNotFoundError:
        return None
