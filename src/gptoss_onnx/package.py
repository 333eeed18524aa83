"""Package: the folder that `export` writes and that every client reads.

All names of its files are here, but for `manifest.json`, which `gptoss_onnx.manifest` owns. A
package may come from a stranger: every file of it is a plain name of a regular file in its folder,
and the readers here refuse any other.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptoss_onnx.errors import PackageError
from gptoss_onnx.files import is_plain_name, read_file
from gptoss_onnx.json_text import read_json_object
from gptoss_onnx.manifest import Manifest, WeightFile

GRAPH_FILE = "model.onnx"
INT8_FILE = "dense-int8.safetensors"  # projections rounded to 8 bits, in target portable
PACKED_FILE = "dense-packed.safetensors"  # projections in 12 bits without loss, in target portable
EXPERTS_FILE = "experts-mxfp4.safetensors"  # experts quantized to MXFP4, in target portable
ASSEMBLED = "assembled.safetensors"  # weights stacked or decoded by the export, in target portable
ORT_WEIGHTS = "weights.safetensors"  # all weights, in target ort
TOKENIZER_FILE = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
TEMPLATE_FILE = "chat_template.jinja"
GENERATION_CONFIG = "generation_config.json"
GENAI_CONFIG = "genai_config.json"
EXPERT_CHECK_FILE = "expert_check.json"  # what one node on MXFP4 gives, in target ort
GOLDEN_FILE = "golden/golden.json"
PARITY_FILE = "parity.json"

_EOS = "eos_token_id"


@dataclass(frozen=True)
class Package:
    """A package: its folder, and the manifest in it.

    `export` returns one that it has written, `runtime.open_package` one whose files it has checked.
    """

    folder: Path
    manifest: Manifest

    @property
    def graph(self) -> Path:
        """Path of the ONNX file; raises PackageError if it is not a regular file of the package."""
        return own_file(self.folder, self.manifest.graph)

    @property
    def weights_root(self) -> Path:
        """Folder the weight file names are relative to."""
        root = self.manifest.weights.root
        return self.folder if root is None else Path(root)

    @property
    def eos_tokens(self) -> tuple[int, ...]:
        """Token ids that end a text, none or more.

        They are those of `generation_config.json`, which people edit, else of the manifest. Raises
        PackageError if the value is neither a token id nor a list of them.
        """
        value = read_own_json(self.folder, GENERATION_CONFIG).get(_EOS)
        if value is None:
            return self.manifest.eos_tokens
        ids = value if isinstance(value, list) else [value]
        if not all(type(token) is int and 0 <= token < 1 << 31 for token in ids):
            raise PackageError(
                f"{self.folder}: {_EOS} in {GENERATION_CONFIG} is {value!r:.60}; expected a token "
                "id or a list of token ids"
            )
        return tuple(ids)

    def weight_path(self, entry: WeightFile) -> Path:
        """Return the path of a weight file; raises PackageError if it leads out of the package."""
        if self.manifest.weights.root is None:
            return own_file(self.folder, entry.name)
        path = self.weights_root / entry.name
        _refuse_leading_out(path, self.weights_root)
        return path

    def is_shared(self, entry: WeightFile) -> bool:
        """Say whether a weight file is the checkpoint's own, which others may change."""
        return self.manifest.weights.mode != "copy" and entry.origin == "checkpoint"


def own_file(folder: Path, name: str) -> Path:
    """Return the path of a file of the package, which need not exist.

    Raises PackageError if the name is not a plain one, if it is a link that leads out of the
    folder, or if something else than a regular file lies there.
    """
    if not is_plain_name(name):
        raise PackageError(f"{folder}: found the file name {name!r:.60}, expected a plain one")
    path = folder / name
    _refuse_leading_out(path, folder)
    if path.exists() and not path.is_file():
        raise PackageError(f"{path}: found something else than a file; export the package again")
    return path


def read_own_file(folder: Path, name: str, limit: int) -> bytes:
    """Return the bytes of a file of the package, `limit` at most.

    Raises FileNotFoundError if there is no such file, PackageError if it leads out of the package
    or is larger.
    """
    return read_file(own_file(folder, name), limit, PackageError)


def read_own_json(folder: Path, name: str) -> dict[str, Any]:
    """Return the JSON object in a file of the package, {} if there is no such file.

    Raises PackageError if it leads out of the package, or is not a JSON object.
    """
    try:
        return read_json_object(own_file(folder, name), PackageError)
    except FileNotFoundError:
        return {}


def _refuse_leading_out(path: Path, folder: Path) -> None:
    try:
        real = path.resolve()
    except (OSError, RuntimeError) as error:  # links in a circle
        raise PackageError(f"{path}: cannot be followed ({error})") from error
    if not real.is_relative_to(folder.resolve()):
        raise PackageError(f"{path}: found a link to {real}, expected a file in {folder}")
