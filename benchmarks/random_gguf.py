"""Write a GGUF file of gpt-oss-20b's shapes with random weights: MXFP4 experts, and Q8_0 elsewhere
as published.

    build/peers/venv/bin/python benchmarks/random_gguf.py OUT.gguf --layers 24

Runs in the environment that peers.sh makes. The tokenizer is made up, since llama.cpp loads no
model without one.
"""

import argparse
from collections.abc import Iterator
from itertools import islice

import gguf
import numpy as np
from gguf import GGMLQuantizationType

HIDDEN, WIDTH, EXPERTS, TOP_K = 2880, 2880, 32, 4
HEADS, KV_HEADS, HEAD_DIM, WINDOW = 64, 8, 64, 128
VOCABULARY, CONTEXT = 201088, 131072
SPECIAL = {"bos": 199998, "eos": 200002, "pad": 199999}
BLOCK = 32
Q8_0, MXFP4 = GGMLQuantizationType.Q8_0, GGMLQuantizationType.MXFP4
MOSTLY_MXFP4 = 38  # llama.cpp's LLAMA_FTYPE_MOSTLY_MXFP4_MOE

random = np.random.default_rng(0)


def main() -> None:
    """Write the file tensor by tensor."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out")
    parser.add_argument("--layers", type=int, default=24)
    arguments = parser.parse_args()
    writer = gguf.GGUFWriter(arguments.out, "gpt-oss", use_temp_file=False)
    describe(writer, arguments.layers)
    tensors = list(plan(arguments.layers))
    for name, shape, kind in tensors:
        dtype = np.dtype(np.float32 if kind is None else np.uint8)
        stored = shape if kind is None else gguf.quant_shape_to_byte_shape(shape, kind)
        writer.add_tensor_info(
            name, stored, dtype, int(np.prod(stored)) * dtype.itemsize, raw_dtype=kind
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, shape, kind in tensors:
        writer.write_tensor_data(
            np.ones(shape, np.float32) if "norm" in name else draw(shape, kind)
        )
    writer.close()


def describe(writer: gguf.GGUFWriter, layers: int) -> None:
    """Write the model's sizes and a tokenizer: bytes, all pairs of them, and some of three."""
    writer.add_block_count(layers)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(WIDTH)
    writer.add_expert_feed_forward_length(WIDTH)
    writer.add_expert_count(EXPERTS)
    writer.add_expert_used_count(TOP_K)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(HEAD_DIM)
    writer.add_value_length(HEAD_DIM)
    writer.add_sliding_window(WINDOW)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(150000.0)
    writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    writer.add_rope_scaling_factor(32.0)
    writer.add_rope_scaling_orig_ctx_len(4096)
    writer.add_vocab_size(VOCABULARY)
    writer.add_file_type(MOSTLY_MXFP4)
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {byte: chr(byte) for byte in printable} | {
        byte: chr(256 + i) for i, byte in enumerate(others)
    }
    tokens = [letters[byte] for byte in range(256)]
    merges = list(islice(joined(tokens), VOCABULARY - len(tokens)))
    tokens += ["".join(merge) for merge in merges]
    kinds = [gguf.TokenType.NORMAL] * VOCABULARY
    for name, token in SPECIAL.items():
        tokens[token], kinds[token] = f"<|{name}|>", gguf.TokenType.CONTROL
    words = set(tokens)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-4o")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(merge) for merge in merges if "".join(merge) in words])
    writer.add_bos_token_id(SPECIAL["bos"])
    writer.add_eos_token_id(SPECIAL["eos"])
    writer.add_pad_token_id(SPECIAL["pad"])


def joined(letters: list[str]) -> Iterator[tuple[str, str]]:
    """Yield what a word is joined from: two letters, then two and a third."""
    pairs = [(one, other) for one in letters for other in letters]
    yield from pairs
    yield from ((one + other, third) for one, other in pairs for third in letters)


def plan(layers: int):
    """Yield name, shape and type (None: float32) of every tensor."""
    yield "token_embd.weight", (VOCABULARY, HIDDEN), Q8_0
    yield "output_norm.weight", (HIDDEN,), None
    yield "output.weight", (VOCABULARY, HIDDEN), Q8_0
    query, key = HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM
    for layer in range(layers):
        block = f"blk.{layer}."
        yield block + "attn_norm.weight", (HIDDEN,), None
        yield block + "post_attention_norm.weight", (HIDDEN,), None
        yield block + "attn_sinks.weight", (HEADS,), None
        shapes = {
            "q": (query, HIDDEN),
            "k": (key, HIDDEN),
            "v": (key, HIDDEN),
            "output": (HIDDEN, query),
        }
        for name, shape in shapes.items():
            yield f"{block}attn_{name}.weight", shape, Q8_0
            yield f"{block}attn_{name}.bias", shape[:1], None
        yield block + "ffn_gate_inp.weight", (EXPERTS, HIDDEN), None
        yield block + "ffn_gate_inp.bias", (EXPERTS,), None
        for name, shape in (
            ("gate", (WIDTH, HIDDEN)),
            ("up", (WIDTH, HIDDEN)),
            ("down", (HIDDEN, WIDTH)),
        ):
            yield f"{block}ffn_{name}_exps.weight", (EXPERTS, *shape), MXFP4
            yield f"{block}ffn_{name}_exps.bias", (EXPERTS, shape[0]), None


def draw(shape: tuple[int, ...], kind: GGMLQuantizationType | None) -> np.ndarray:
    """Return random values of about 0.02, in the bytes of their type."""
    if kind is None:
        return 0.02 * random.standard_normal(shape, np.float32)
    header = 2 if kind == Q8_0 else 1
    blocks = random.integers(0, 256, gguf.quant_shape_to_byte_shape(shape, kind), np.uint8)
    each = blocks.reshape(*shape[:-1], shape[-1] // BLOCK, -1)
    if kind == Q8_0:
        each[..., :header] = np.array([0.02 / 73], np.float16).view(np.uint8)
    else:
        each[..., 0] = random.integers(119, 121, each.shape[:-1], np.uint8)
    return blocks


if __name__ == "__main__":
    main()
