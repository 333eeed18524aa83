"""A small byte-level tokenizer without harmony, as Qwen's family has them."""

from pathlib import Path
from typing import Literal

import tokenizers

Tags = Literal["special", "added", "text"]
END = "<|im_end|>"
TAGS = ("<think>", "</think>", "<tool_call>", "</tool_call>")
_SEEN = [
    '{"name": "get_weather", "arguments": {"city": "Oslo", "days": [1, 2, 30]}}',
    "the cat sat on the mat. <tool_call> </tool_call> <think> </think> Привет 你好 😀",
]


def write_plain_tokenizer(folder: Path, tags: Tags) -> Path:
    """Write tokenizer.json. The tags of thoughts and calls are special tokens, tokens that are
    not special (Qwen3), or no tokens.
    """
    folder.mkdir(parents=True, exist_ok=True)
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<|im_start|>", END],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(_SEEN * 3, trainer)
    if tags != "text":
        is_special = tags == "special"
        added = [tokenizers.AddedToken(t, special=is_special, normalized=False) for t in TAGS]
        (backend.add_special_tokens if is_special else backend.add_tokens)(added)
    backend.save(str(folder / "tokenizer.json"))
    return folder
