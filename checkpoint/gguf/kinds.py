"""The tensor types of GGUF: those that are read, and the names of the others."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """A type that is read: `block` elements take `nbytes` bytes."""

    name: str
    block: int
    nbytes: int


# Of ollama's first converter, by a number that ggml gave up: bytes as in Hugging Face's layout.
OLLAMA_MXFP4 = "MXFP4 of ollama"
KINDS = {
    0: Kind("F32", 1, 4),
    1: Kind("F16", 1, 2),
    4: Kind(OLLAMA_MXFP4, 32, 17),
    8: Kind("Q8_0", 32, 34),
    30: Kind("BF16", 1, 2),
    39: Kind("MXFP4", 32, 17),
}
# As ggml.h numbers them; for messages.
_OTHERS = {
    2: "Q4_0",
    3: "Q4_1",
    5: "Q4_3",
    6: "Q5_0",
    7: "Q5_1",
    9: "Q8_1",
    10: "Q2_K",
    11: "Q3_K",
    12: "Q4_K",
    13: "Q5_K",
    14: "Q6_K",
    15: "Q8_K",
    16: "IQ2_XXS",
    17: "IQ2_XS",
    18: "IQ3_XXS",
    19: "IQ1_S",
    20: "IQ4_NL",
    21: "IQ3_S",
    22: "IQ2_S",
    23: "IQ4_XS",
    24: "I8",
    25: "I16",
    26: "I32",
    27: "I64",
    28: "F64",
    29: "IQ1_M",
    34: "TQ1_0",
    35: "TQ2_0",
    40: "NVFP4",
    41: "Q1_0",
}


def kind_name(number: int) -> str:
    """Return what people call a type."""
    kind = KINDS.get(number)
    return kind.name if kind is not None else _OTHERS.get(number, str(number))
