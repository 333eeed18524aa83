"""Which slot of a cache holds which position, and which slots a query sees.

Legend: B batch, S new tokens, C cache capacity, W window, m kept first tokens (`sink_tokens`).

The token at position p lies in slot p where p < m, and in slot m + (p − m) mod (C − m) elsewhere:
the first m tokens stay, the others go round in a ring. With m = 0 the whole cache is that ring.
After a call, row b holds positions up to `last` = past + new − 1, so the ring's slot s holds the
position last − ((last − s) mod (C − m)); less than m means that nothing was written there.

A query at p sees the positions up to its own; with a window it sees the last W − m of them and the
m first. Padding lands in slots whose positions no query of this or a later call may see, as long as
C keeps the bounds that `check_capacity` states.
"""

import torch

from gptoss_onnx.errors import InputError


def check_capacity(capacity: int, past_lengths: torch.Tensor, new: int, window: int) -> None:
    """Refuse a call that would overwrite a slot one of its own queries still sees.

    A full layer needs C ≥ past + S (S counts padding); a window layer needs C ≥ min(past + S,
    W + S − 1), with kept tokens or without.

    Raises:
        InputError: naming the first row that does not fit.
    """
    needed = past_lengths + new
    if window > 0:
        needed = needed.clamp(max=window + new - 1)
    rows = torch.nonzero(needed > capacity).flatten().tolist()
    if rows:
        row = rows[0]
        raise InputError(
            f"SinkAttention: row {row} has {int(past_lengths[row])} cached tokens and {new} new "
            f"ones and needs {int(needed[row])} slots (window {window}); the cache holds {capacity}"
        )


def slots_of(positions: torch.Tensor, capacity: int, kept: int = 0) -> torch.Tensor:
    """Return the slot of each position, both int64 of any shape."""
    # If the kept tokens fill all C slots, no position is in the ring, and 1 avoids a division by 0.
    ring = max(1, capacity - kept)
    return torch.where(positions < kept, positions, kept + torch.remainder(positions - kept, ring))


def held_positions(last: torch.Tensor, capacity: int, kept: int = 0) -> torch.Tensor:
    """Return the position in each slot, int64 (B, C), −1 for none, from each row's last one (B)."""
    slots = torch.arange(capacity, device=last.device)
    last = last.unsqueeze(1)
    ring = last - torch.remainder(last - slots, max(1, capacity - kept))
    held = torch.where(slots < kept, slots, ring.masked_fill(ring < kept, -1))
    return held.masked_fill(held > last, -1)


def visible_slots(
    positions: torch.Tensor, last: torch.Tensor, capacity: int, window: int, kept: int = 0
) -> torch.Tensor:
    """Return which slots each query sees, bool (B, S, C), from its position (B, S) and the row's
    last one (B).
    """
    held = held_positions(last, capacity, kept).unsqueeze(1)  # (B, 1, C)
    distance = positions.unsqueeze(2) - held  # (B, S, C)
    visible: torch.Tensor = (held >= 0) & (distance >= 0)
    if window > 0:
        visible = visible & ((distance < window - kept) | (held < kept))
    return visible
