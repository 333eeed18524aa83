"""What each way to export a model writes, holds and reads, in bytes."""

from collections.abc import Sequence
from dataclasses import dataclass

_MULTIPLIED = ("attention", "router", "feed-forward", "lm_head")
_FLOAT32 = 4  # bytes a number
_UINT8_BLOCK = 1 + 4 / 32  # bytes a number: eight bits, and a float32 scale for 32 of them
_INT4_BLOCK = 0.5 + 4 / 32
_MXFP4_BLOCK = 0.5 + 1 / 32


@dataclass(frozen=True)
class Piece:
    """One parameter: its kind, how many numbers it has, their bytes, and what a token needs of it.

    Attributes:
        kind: one of budget.py's KINDS.
        numbers: how many.
        stored: bytes in the checkpoint; of FP8 weights, their scales too.
        exported: bytes in a package of target portable; FP8 is bfloat16 there.
        share: the part that one token multiplies with: k/E of experts, 1/V of an embedding that is
            only looked up, else 1.
        projection: whether it is a matrix that `--dense int8` would round.
        in_12_bits: bytes that `--dense packed` makes of it, without the exceptions, which only
            weights tell (0.1 to 0.5 % of it); 0 if it leaves it alone.
        packed: whether it is MXFP4.
        matrix: whether it has rows and columns, unlike biases and norms.
        computed: whether a package cannot link it, because the checkpoint stores it in FP8, or in
            more matrices than a graph can have.
    """

    kind: str
    numbers: int
    stored: int
    exported: int
    share: float
    projection: bool
    in_12_bits: int
    packed: bool
    matrix: bool
    computed: bool


@dataclass(frozen=True)
class Choice:
    """One way to export, in bytes: what it writes, what its graph multiplies with in all, and what
    of that a token reads.
    """

    written: int
    memory: int
    read: int


def choices_of(pieces: list[Piece]) -> dict[str, Choice]:
    """Return what each choice of `export` writes beside the checkpoint, holds and reads."""
    computed = [piece for piece in pieces if piece.computed]
    projections = [piece for piece in pieces if piece.projection]
    kept = [piece for piece in pieces if not piece.projection]
    rounded = [(piece, piece.numbers * _UINT8_BLOCK) for piece in projections]
    own = rounded + [(piece, piece.exported) for piece in computed if not piece.projection]
    whole = [(piece, piece.exported) for piece in pieces]
    tight = [(piece, piece.in_12_bits) for piece in pieces if piece.in_12_bits]
    loose = [(piece, piece.exported) for piece in pieces if not piece.in_12_bits]
    choices = {
        "portable, linked": _choice([(piece, piece.exported) for piece in computed], whole),
        "portable, copied": _choice(whole, whole),
        "portable, --dense packed": _choice(
            tight + [(piece, size) for piece, size in loose if piece.computed], tight + loose
        ),
        "portable, --dense int8": _choice(
            own, rounded + [(piece, piece.exported) for piece in kept]
        ),
    }
    dense = [piece for piece in pieces if _is_dense_expert(piece)]
    if dense:
        small = [(piece, piece.numbers * _MXFP4_BLOCK) for piece in dense]
        others = [(piece, piece.exported) for piece in pieces if not _is_dense_expert(piece)]
        new = [(piece, size) for piece, size in others if piece.computed]
        choices["portable, --experts mxfp4"] = _choice([*small, *new], [*small, *others])
    return choices | _ort_choices(pieces)


def _is_dense_expert(piece: Piece) -> bool:
    return piece.kind == "experts" and piece.matrix and not piece.packed


def _ort_choices(pieces: list[Piece]) -> dict[str, Choice]:
    """Return the choices of target ort on the CPU. Its MoE multiplies dense experts in float32."""
    choices = {
        "ort": _ort_choice(pieces, _MULTIPLIED),
        "ort, --dense checkpoint": _ort_choice(pieces),
    }
    if any(piece.packed for piece in pieces):
        for name, size in (("int8", _UINT8_BLOCK), ("int4", _INT4_BLOCK)):
            choices[f"ort, --experts {name}"] = _ort_choice(pieces, _MULTIPLIED, size)
    return choices


def _ort_choice(
    pieces: list[Piece], widened: tuple[str, ...] = (), packed: float | None = None
) -> Choice:
    """Return the choice that widens matrices of some kinds to float32, and takes `packed` bytes for
    a number of MXFP4; None: it stays, and all that stays is linked.
    """
    written, held = [], []
    for piece in pieces:
        dense = piece.matrix and not piece.packed and piece.kind in ("experts", *widened)
        size: float = piece.numbers * _FLOAT32 if dense else piece.exported
        if piece.packed and packed is not None:
            size = piece.numbers * packed
        held.append((piece, size))
        if dense or piece.computed or packed is not None:
            written.append((piece, size))
    return _choice(written, held)


def _choice(written: Sequence[tuple[Piece, float]], held: Sequence[tuple[Piece, float]]) -> Choice:
    """Return the choice that writes and holds these pieces, each with its bytes."""
    return Choice(
        written=round(sum(size for _, size in written)),
        memory=round(sum(size for _, size in held)),
        read=round(sum(size * piece.share for piece, size in held)),
    )
