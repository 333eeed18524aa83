"""PromptCache: a prompt that is run once a machine: a file keeps what the KV cache holds after it.

Another prompt that begins alike takes from the file what they share.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from gptoss_onnx.choices import Activations
from gptoss_onnx.errors import InputError
from gptoss_onnx.package import Package
from gptoss_onnx.runtime.arguments import folder_path
from gptoss_onnx.runtime.cache_rows import common_prefix
from gptoss_onnx.runtime.kv_cache import KVCache
from gptoss_onnx.runtime.row_state import RowState

if TYPE_CHECKING:
    from gptoss_onnx.runtime.session import Session

# Tokens by which prompts may differ at their ends, such as questions after one long system message:
# window layers keep so many more than later tokens see.
RESERVE = 1024
# The file is written anew where less than this share of a prompt came from it.
ENOUGH = 0.5


class PromptCache:
    """A file with the row of a prompt, which need not exist yet.

    Attributes:
        path: where it is.
        cached: tokens of the last prompt that came from it.
        seconds: what the others took to run.
    """

    def __init__(self, path: Path, state: RowState | None) -> None:
        self.path, self._state = path, state
        self.cached, self.seconds = 0, 0.0

    @classmethod
    def open(cls, path: str | os.PathLike[str], package: Package, activations: Activations) -> Self:
        """Map the file if there is one.

        Raises PackageError for one that is no saved row, and for one of another package or of other
        activations: it stays as it is; InputError where its folder is missing.
        """
        file = Path(folder_path("prompt cache", path, "file"))
        if os.path.lexists(file):
            return cls(file, RowState.open(file, package, activations))
        if not file.parent.is_dir():
            raise InputError(f"{file}: found no such folder, expected one for the prompt's cache")
        return cls(file, None)

    def read(self, session: "Session", tokens: Sequence[int], new_tokens: int) -> KVCache:
        """Return a cache that holds all tokens of a prompt but the last, for `new_tokens` more.

        What the file does not hold is run, and the file is written where it held too little.
        Raises what `Session.forward` and `RowState.save` raise.
        """
        prompt, state = np.array(tokens[:-1], np.int64), self._state
        shared = 0 if state is None else common_prefix(state.tokens, prompt)
        capacity = len(tokens) + new_tokens
        if state is not None and shared > 0:
            capacity = max(capacity, state.length)
        rewinds = session.contract.layout.rewinds
        cache = session.new_cache(
            1, min(capacity, session.manifest.longest), RESERVE if rewinds else 0
        )
        if state is not None and shared > 0:
            cache.load_row(0, state)
            cache.rewind(cache.reachable(0, shared))
        self.cached = int(cache.lengths[0])
        begin = time.perf_counter()
        if self.cached < prompt.size:
            session.forward(prompt[None, self.cached :], cache)
        self.seconds = time.perf_counter() - begin
        if self.cached < ENOUGH * prompt.size:
            cache.save(self.path, session)
        return cache
