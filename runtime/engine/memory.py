"""What an engine's rows take, in bytes, before anything is allocated."""

from gptoss_onnx.errors import PackageError
from gptoss_onnx.runtime.cache_layout import slot_bytes
from gptoss_onnx.runtime.row_state import RowState
from gptoss_onnx.runtime.session import Session

# Tokens that a row can be cut back by where window layers have wrapped: what differs at the end of
# a saved prompt when the next one goes on from it. Window layers hold so many slots more.
RESERVE = 64


def plan_bytes(session: Session, slots: int, capacity: int, chunk: int, prefix_bytes: int) -> int:
    """Return the most bytes that slots, staging row, copies of rows, logits and saved rows take.

    There are two copies of rows at once beside the saved ones: what is in the staging row, and what
    ends. Logits (slots, V) count as float32, and as the float64 that they become where a token is
    drawn.
    """
    row = cache_bytes(session, 1, capacity, chunk)
    logits = slots * session.vocab * (4 + 8)
    return cache_bytes(session, slots, capacity, 1) + 3 * row + logits + prefix_bytes


def cache_bytes(session: Session, batch: int, capacity: int, chunk: int) -> int:
    """Return what `session.new_cache` of these sizes takes, with `RESERVE`.

    With one row, as many tokens as there are, and the chunk of the cache that it comes from, it is
    also the most that a saved row takes.
    """
    manifest, layout = session.manifest, session.contract.layout
    of_a_row = sum(
        layout.slots(layer, batch, capacity, RESERVE, chunk) * slot_bytes(layer, manifest.kv_dtype)
        for layer in manifest.cache
    )
    return batch * (of_a_row + capacity * 8)  # and the token ids, int64


def check_rows(session: Session) -> None:
    """Refuse a package whose rows cannot go their own ways; raises PackageError."""
    layout = session.contract.layout
    if not (layout.rewinds and layout.ragged):
        raise PackageError(
            f"{session.package.folder}: found target ort for ONNX Runtime 1.28, whose rows go "
            "together; expected rows that go their own ways: export with --target portable, or "
            "with --onnxruntime 1.32"
        )


def check_state(session: Session, state: RowState) -> None:
    """Refuse a row that was saved from another package; raises InputError."""
    manifest, layout = session.manifest, session.contract.layout
    state.check_fits(manifest.cache, manifest.kv_dtype, layout)
