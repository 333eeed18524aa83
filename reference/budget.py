"""What a model costs before anybody has built it: numbers, bytes, operations.

Parameters come from the decoder on the meta device, so they are those that a checkpoint must hold.
Their bytes are those of an opened checkpoint. Without one they are the published ones: MXFP4 as it
is, and bfloat16.
Legend: V vocabulary, E experts, K kv heads, D head dim, H query heads, N context in tokens.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import Any, Self

from gptoss_onnx.checkpoint.tensors import Parameter
from gptoss_onnx.custom_ops.linear_int8 import BLOCK as INT8_BLOCK
from gptoss_onnx.reference.architectures import ARCHITECTURES
from gptoss_onnx.reference.config import DecoderConfig, ExpertsConfig
from gptoss_onnx.reference.parameters import MOST_MATRICES, matrices_of, meta_state

KV_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
KINDS = (
    "embedding",
    "attention",
    "router",
    "experts",
    "feed-forward",
    "norms",
    "lm_head",
)
_MULTIPLIED = ("attention", "router", "feed-forward", "lm_head")
_BFLOAT16 = 2  # bytes a number, as checkpoints are published
_FLOAT32 = 4
_PACKED = 1.5  # bytes a number that `--dense packed` takes, beside a byte a row and few exceptions
_UINT8_BLOCK = 1 + 4 / 32  # bytes a number: eight bits, and a float32 scale for 32 of them
_INT4_BLOCK = 0.5 + 4 / 32


@dataclass(frozen=True)
class Piece:
    """One parameter: its kind, how many numbers it has, their bytes, and what a token needs of it.

    Attributes:
        kind: one of KINDS.
        numbers: how many.
        stored: bytes in the checkpoint; of FP8 weights, their scales too.
        exported: bytes in a package of target portable; FP8 is bfloat16 there.
        share: the part that one token multiplies with: k/E of experts, 1/V of an embedding that is
            only looked up, else 1.
        projection: whether it is a matrix that `--dense int8` would round.
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


@dataclass(frozen=True)
class Budget:
    """The figures of a model at a context; bytes and operations are of one sequence times `batch`.

    Attributes:
        parameters: all numbers.
        active: those that a token needs: all but the experts that it is not sent to.
        active_without_embedding: the same less the embedding table.
        weight_bytes: by kind, as the checkpoint stores them.
        exported_bytes: of all weights in a package of target portable that rounds none.
        choices: by the options of `export`.
        cache_bytes_per_token: what one more token adds while no window is full.
        cache_bytes: at the context; a window layer holds no more than its window.
        operations: of one token at the context, a multiplication and an addition as one each.
    """

    context: int
    batch: int
    kv_dtype: str
    parameters: int
    active: int
    active_without_embedding: int
    weight_bytes: Mapping[str, int]
    exported_bytes: int
    choices: Mapping[str, Choice]
    cache_bytes_per_token: int
    cache_bytes: int
    operations: int

    @classmethod
    def of(
        cls,
        config: DecoderConfig,
        context: int,
        batch: int,
        kv_dtype: str,
        parameters: Mapping[str, Parameter] | None = None,
    ) -> Self:
        """Return the figures.

        Args:
            config: of the model.
            context: tokens in the cache.
            batch: sequences.
            kv_dtype: one of KV_BYTES.
            parameters: of an opened checkpoint, by the decoder's names; None if there is none.
        """
        pieces = list(_pieces(config, parameters))
        active = sum(piece.numbers * _taken(piece) for piece in pieces)
        table = config.vocab_size * config.hidden_size
        slots = [
            2 * part.kv_heads * part.head_dim * KV_BYTES[kv_dtype] for part in _attention(config)
        ]
        held = [min(context, part.window or context) for part in _attention(config)]
        scores = sum(
            4 * part.heads * part.head_dim * seen
            for part, seen in zip(_attention(config), held, strict=True)
        )
        multiplied = sum(piece.numbers * piece.share for piece in pieces if piece.kind != "norms")
        return cls(
            context=context,
            batch=batch,
            kv_dtype=kv_dtype,
            parameters=sum(piece.numbers for piece in pieces),
            active=round(active),
            active_without_embedding=round(active) - table,
            weight_bytes={
                kind: sum(piece.stored for piece in pieces if piece.kind == kind) for kind in KINDS
            },
            exported_bytes=sum(piece.exported for piece in pieces),
            choices=_choices(pieces),
            cache_bytes_per_token=sum(slots),
            cache_bytes=batch * sum(a * b for a, b in zip(slots, held, strict=True)),
            operations=batch * round(2 * multiplied + scores),
        )

    @property
    def total_bytes(self) -> int:
        """Bytes of all weights as the checkpoint stores them."""
        return sum(self.weight_bytes.values())

    def tokens_per_second(self, choice: str, bandwidth: float) -> float:
        """Return the most tokens a second of one sequence that reading memory allows.

        `bandwidth` is in 10⁹ bytes a second. All weights that a token needs and all of the cache
        are read once.
        """
        return bandwidth * 1e9 / (self.choices[choice].read + self.cache_bytes / self.batch)

    def to_json(self) -> dict[str, Any]:
        """Return all figures."""
        return {**asdict(self), "total_bytes": self.total_bytes}


def _attention(config: DecoderConfig) -> list[Any]:
    return [layer.attention for layer in config.layers]


def _taken(piece: Piece) -> float:
    """The share that counts as active: a looked-up table counts whole."""
    return 1.0 if piece.kind == "embedding" else piece.share


def _pieces(config: DecoderConfig, parameters: Mapping[str, Parameter] | None) -> Iterator[Piece]:
    state = meta_state(config)
    architecture = ARCHITECTURES[config.model_type]
    stacked = matrices_of(architecture, config) > MOST_MATRICES
    for name, tensor in state.items():
        kind, packed = _kind(name), name.endswith(("_blocks", "_scales"))
        numbers = prod(tensor.shape) * (2 if name.endswith("_blocks") else 1)
        if parameters is None:
            exported = stored = prod(tensor.shape) * (1 if packed else _BFLOAT16)
            computed = stacked and name.rpartition(".")[2] in architecture.experts
        else:
            parameter = parameters[name]
            exported, stored = parameter.nbytes, parameter.stored_nbytes
            apart = len(parameter.sources) > 1 and parameter.scales is None
            computed = stacked if apart else parameter.view is None
        yield Piece(
            kind=kind,
            numbers=0 if name.endswith("_scales") else numbers,
            stored=stored,
            exported=exported,
            share=_share(config, name),
            projection=_is_projection(name, kind, tuple(tensor.shape)),
            packed=packed,
            matrix=tensor.ndim > 1 and not name.endswith("bias"),
            computed=computed,
        )


def _kind(name: str) -> str:
    if name.startswith("lm_head"):
        return "lm_head"
    if "norm" in name:
        return "norms"
    if ".embed_" in name:
        return "embedding"
    for part, kind in (
        (".self_attn.", "attention"),
        (".router.", "router"),
        (".experts.", "experts"),
    ):
        if part in name:
            return kind
    return "feed-forward"


def _share(config: DecoderConfig, name: str) -> float:
    if ".experts." in name:
        experts = config.layers[int(name.split(".")[2])].feed_forward
        assert isinstance(experts, ExpertsConfig)
        return experts.top_k / experts.count
    if ".embed_tokens." in name:
        return 1.0 if config.tied else 1 / config.vocab_size
    return 1 / config.longest if ".embed_positions." in name else 1.0


def _is_projection(name: str, kind: str, shape: tuple[int, ...]) -> bool:
    kinds = ("attention", "feed-forward", "lm_head")
    matrix = kind in kinds and name.endswith(".weight") and "norm" not in name
    return matrix and len(shape) == 2 and shape[-1] % INT8_BLOCK == 0


def _choices(pieces: list[Piece]) -> dict[str, Choice]:
    """Return what each choice of `export` writes beside the checkpoint, holds and reads."""
    computed = [piece for piece in pieces if piece.computed]
    projections = [piece for piece in pieces if piece.projection]
    kept = [piece for piece in pieces if not piece.projection]
    rounded = [(piece, piece.numbers * _UINT8_BLOCK) for piece in projections]
    own = rounded + [(piece, piece.exported) for piece in computed if not piece.projection]
    whole = [(piece, piece.exported) for piece in pieces]
    choices = {
        "portable, linked": _choice([(piece, piece.exported) for piece in computed], whole),
        "portable, copied": _choice(whole, whole),
        "portable, --dense int8": _choice(
            own, rounded + [(piece, piece.exported) for piece in kept]
        ),
    }
    return choices | _ort_choices(pieces)


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
