"""What a model costs before anybody has built it: numbers, bytes, operations.

Parameters come from the decoder on the meta device, so they are those that a checkpoint must hold.
Their bytes are those of an opened checkpoint. Without one they are the published ones: MXFP4 as it
is, and bfloat16.
Legend: V vocabulary, E experts, K kv heads, D head dim, H query heads, N context in tokens.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from math import prod
from typing import Any, Self

from gptoss_onnx.checkpoint.tensors import Parameter, TensorInfo
from gptoss_onnx.custom_ops.linear_int8 import BLOCK as INT8_BLOCK
from gptoss_onnx.custom_ops.linear_packed import BLOCK as PACKED_BLOCK
from gptoss_onnx.reference.architectures import ARCHITECTURES
from gptoss_onnx.reference.config import DecoderConfig, ExpertsConfig
from gptoss_onnx.reference.export_choices import Choice, Piece, choices_of
from gptoss_onnx.reference.parameters import MOST_MATRICES, matrices_of, meta_state, reads_apart

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
_BFLOAT16 = 2  # bytes a number, as checkpoints are published


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
            choices=choices_of(pieces),
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
    mixtures = [part.feed_forward for part in config.layers]
    separate = all(reads_apart(part) for part in mixtures if isinstance(part, ExpertsConfig))
    counted: set[TensorInfo] = set()  # blocks and scales may come from the same bytes
    for name, tensor in state.items():
        kind, packed = _kind(name), name.endswith(("_blocks", "_scales"))
        numbers = prod(tensor.shape) * (2 if name.endswith("_blocks") else 1)
        dtype = "BF16"  # as checkpoints are published
        if parameters is None:
            exported = stored = prod(tensor.shape) * (1 if packed else _BFLOAT16)
            computed = stacked and name.rpartition(".")[2] in architecture.experts
        else:
            parameter = parameters[name]
            exported = parameter.nbytes
            stored = sum(tensor.nbytes for tensor in set(parameter.stored) - counted)
            counted |= set(parameter.stored)
            dtype = parameter.dtype
            apart = separate and len(parameter.sources) > 1 and parameter.computed is None
            computed = stacked if apart else parameter.view is None
        yield Piece(
            kind=kind,
            numbers=0 if name.endswith("_scales") else numbers,
            stored=stored,
            exported=exported,
            share=_share(config, name),
            projection=_is_projection(name, kind, tuple(tensor.shape)),
            in_12_bits=_in_12_bits(name, kind, tuple(tensor.shape), dtype),
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


def _in_12_bits(name: str, kind: str, shape: tuple[int, ...], dtype: str) -> int:
    """Return the bytes of the planes, and of a base for each row."""
    if dtype != "BF16" or not _is_projection(name, kind, shape) or shape[-1] % PACKED_BLOCK != 0:
        return 0
    return prod(shape) * 3 // 2 + shape[0]
