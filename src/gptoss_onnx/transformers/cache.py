"""PackageCache: a KV cache of a package as transformers' `generate` knows one.

B batch, S columns of a call, V vocabulary. A column is one position of transformers' padded batch;
a row of the package holds the tokens among them.
"""

from typing import NoReturn

import numpy as np
from numpy.typing import NDArray
from transformers.cache_utils import Cache

from gptoss_onnx.errors import InputError
from gptoss_onnx.runtime import KVCache, Session
from gptoss_onnx.transformers.columns import Columns, Integers, Mask

FIRST_ROOM = 256  # tokens after a prompt that a cache begins with; it doubles when they are used up
RESERVE = 64  # tokens that the cache of a model that drafts can be cropped by at any time


class PackageCache(Cache):
    """The cache of one batch: its buffers are made by the first call, grow, and can be cropped.

    It is made by `generate`, or by `GptossOnnxForCausalLM.new_cache` to be kept between calls.
    """

    is_compileable = False
    is_croppable = True
    _is_user_defined = False  # `generate` sets it for one that it was given

    def __init__(self, session: Session) -> None:
        super().__init__(layers=[])
        self._session = session
        self._rows: KVCache | None = None
        self._real: Mask = np.zeros((0, 0), np.bool_)  # (B, columns) which hold a token
        self._reserve = 0

    def run(self, input_ids: Integers, mask: Mask | None, kept: Integers) -> NDArray[np.float32]:
        """Run new columns and return the logits of those that are wanted.

        Args:
            input_ids: (B, S).
            mask: which columns hold a token, (B, columns so far + S); None if all new ones do.
            kept: indices of the wanted columns, 0 to S − 1, (kept).

        Returns:
            float32 (B, kept, V); zeros for a column without a token.

        Raises InputError for a mask that does not fit, and what `Session.forward` raises.
        """
        before = self._before(len(input_ids))
        real = np.ones(input_ids.shape, np.bool_) if mask is None else self._new(mask, input_ids)
        columns = Columns.of(input_ids, real, kept)
        rows = self._with_room(columns.new_lengths)
        logits = self._session.forward(
            columns.input_ids, rows, columns.new_lengths, columns.logit_positions
        )
        self._real = np.concatenate([before, real], axis=1)
        return logits

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return how many columns were run, padding included."""
        return int(self._real.shape[1])

    def get_max_length(self, layer_idx: int | None = None) -> int:
        """Return the most tokens that a row can have."""
        return self._session.manifest.longest

    @property
    def batch_size(self) -> int:
        """B; −1 before the first call."""
        return -1 if self._rows is None else self._rows.batch

    @property
    def is_initialized(self) -> bool:
        """Whether the buffers are there."""
        return self._rows is not None

    def activate_past_recording(self) -> None:
        """Let buffers that are still to be made bear `crop` beyond the last call."""
        self._reserve = RESERVE

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last columns; the number of them is negative, as transformers has it.

        Raises InputError for a positive number, and as `KVCache.rewind`.
        """
        if tokens_to_remove > 0:
            raise InputError(
                f"crop: found {tokens_to_remove}, expected 0 or less: minus the columns to forget"
            )
        if tokens_to_remove == 0 or self._rows is None:
            return
        left = self._real[:, :tokens_to_remove]
        self._rows.rewind(left.sum(axis=1))
        self._real = left

    def reset(self) -> None:
        """Forget everything; the buffers stay."""
        if self._rows is not None:
            self._rows.reset()
        self._real = self._real[:, :0]

    def close(self) -> None:
        """Free the buffers; the cache is empty then, and can be used anew."""
        if self._rows is not None:
            self._rows.close()
        self._rows, self._real = None, np.zeros((0, 0), np.bool_)

    def reorder_cache(self, beam_idx: object) -> NoReturn:
        """Refuse what beams need."""
        _refuse("be reordered")

    def batch_repeat_interleave(self, repeats: int) -> NoReturn:
        """Refuse what beams need."""
        _refuse("be repeated")

    def batch_select_indices(self, indices: object) -> NoReturn:
        """Refuse what beams need."""
        _refuse("lose single rows")

    def update(self, *states: object, **others: object) -> NoReturn:
        """Refuse states from outside: the graph writes its own."""
        _refuse("take states from outside")

    def _before(self, batch: int) -> Mask:
        """Return what was run so far, (B, columns)."""
        if self._rows is None or not self._real.size:
            return np.zeros((batch, 0), np.bool_)
        if batch != self._rows.batch:
            raise InputError(
                f"input_ids: found {batch} rows, expected {self._rows.batch}, those of the cache"
            )
        return self._real

    def _new(self, mask: Mask, input_ids: Integers) -> Mask:
        """Return the part of a whole mask that belongs to new columns, (B, S)."""
        before = self._before(len(input_ids))
        past, new = before.shape[1], input_ids.shape[1]
        if mask.shape != (len(input_ids), past + new):
            raise InputError(
                f"attention_mask: found shape {mask.shape}, expected "
                f"({len(input_ids)}, {past + new}): {past} cached columns and {new} new ones"
            )
        if (mask[:, :past] != before).any():
            raise InputError(
                "attention_mask: found another padding than when the cached columns were run, "
                "expected the same; begin with a new cache"
            )
        return mask[:, past:]

    def _with_room(self, new_lengths: Integers) -> KVCache:
        """Return the buffers, with room for so many new tokens of each row (B)."""
        longest = self._session.manifest.longest
        rows = self._rows
        if rows is None or rows.batch != len(new_lengths):  # another batch only where it is empty
            if rows is not None:
                rows.close()
            wanted = min(int(new_lengths.max()) + FIRST_ROOM, longest)
            rows = self._session.new_cache(len(new_lengths), wanted, self._reserve)
        elif (rows.lengths != self._real.sum(axis=1)).any():
            raise InputError("cache: found it half run by a call that failed; reset it")
        most = int((rows.lengths + new_lengths).max())
        if most > rows.capacity:
            rows.grow(max(rows.capacity, min(max(2 * rows.capacity, most), longest)))
        self._rows = rows
        return rows


def _refuse(what: str) -> NoReturn:
    raise InputError(f"cache: found one of a package, which cannot {what}")
