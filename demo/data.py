"""Text, tokenizer and training rows.

The text is Jane Austen's six novels (public domain) from Debian's r-cran-janeaustenr. The package
stores them as R's lazy-load database: chunks of a 4-byte big-endian length and a zlib stream, each
stream one serialised vector of lines.
"""

import re
import struct
import subprocess
import zlib
from pathlib import Path

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor

PACKAGE = "r-cran-janeaustenr"
DATABASE = "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb"
HELD_OUT = 0.04  # the end of each novel

SPECIALS = (
    "<|startoftext|>", "<|endoftext|>", "<|return|>", "<|start|>", "<|end|>", "<|message|>",
    "<|channel|>",
)  # fmt: skip
HEADING = r"(chapter|volume)\b|by( jane austen.*)?$|jane austen.*$|\(\d+\)$"
# The pattern gpt-oss's own tokenizer (o200k_harmony) splits text with.
UPPER, LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
BEFORE, SHORT = r"[^\r\n\p{L}\p{N}]?", r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
SPLIT = (
    rf"{BEFORE}[{UPPER}]*[{LOWER}]+{SHORT}|{BEFORE}[{UPPER}]+[{LOWER}]*{SHORT}"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def load_novels(folder: Path) -> list[list[str]]:
    """Paragraphs of each novel, downloaded into `folder` with apt on the first call."""
    database = folder / "package" / DATABASE
    if not database.exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", PACKAGE], cwd=folder, check=True)
        (archive,) = folder.glob(f"{PACKAGE}_*.deb")
        subprocess.run(["dpkg", "-x", archive, folder / "package"], check=True)
    return [_paragraphs(lines) for lines in _read_database(database.read_bytes())]


def split_held_out(novels: list[list[str]]) -> tuple[list[list[str]], list[list[str]]]:
    """(training, held-out) paragraphs: the last 4 % of every novel is never trained on."""
    cuts = [round(len(novel) * (1 - HELD_OUT)) for novel in novels]
    kept = [novel[:cut] for novel, cut in zip(novels, cuts, strict=True)]
    held = [novel[cut:] for novel, cut in zip(novels, cuts, strict=True)]
    return kept, held


def train_tokenizer(novels: list[list[str]], vocab_size: int) -> Tokenizer:
    """Byte-level BPE in the shape of gpt-oss's tokenizer; special tokens come last, as there."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((p + "\n\n" for novel in novels for p in novel), trainer)
    tokenizer.add_special_tokens(list(SPECIALS))
    assert tokenizer.get_vocab_size() == vocab_size
    return tokenizer


def special_ids(tokenizer: Tokenizer) -> dict[str, int]:
    """Id of each special token."""
    vocabulary = tokenizer.get_vocab()
    return {token: vocabulary[token] for token in SPECIALS}


class Rows:
    """Random training rows: stretches of the novels, and a share of chats packed end to end."""

    def __init__(
        self, novels: list[list[str]], tokenizer: Tokenizer, chat_share: float, seed: int
    ) -> None:
        self.tokenizer, self.chat_share = tokenizer, chat_share
        self.random = np.random.default_rng(seed)
        self.paragraphs = [p for novel in novels for p in novel]
        ids = special_ids(tokenizer)
        bos, eos = ids["<|startoftext|>"], ids["<|endoftext|>"]
        stream: list[int] = []
        starts: list[int] = []
        for novel in novels:
            stream.append(bos)
            for encoding in tokenizer.encode_batch([p + "\n\n" for p in novel]):
                starts.append(len(stream))
                stream += encoding.ids
            stream.append(eos)
        self.stream, self.starts = np.array(stream), np.array(starts)

    def batch(self, size: int, length: int) -> Tensor:
        """(size, length + 1) int64; inputs are [:, :-1] and targets [:, 1:]."""
        chats = self.random.binomial(size, self.chat_share)
        rows = [self._chat_row(length + 1) for _ in range(chats)]
        rows += [self._novel_row(length + 1) for _ in range(size - chats)]
        return torch.from_numpy(np.stack(rows)).long()

    def _novel_row(self, length: int) -> np.ndarray:
        last = len(self.stream) - length
        # Half begin with a paragraph, as a prompt does; the others anywhere, so that no token is
        # favoured.
        anywhere = self.random.random() < 0.5
        start = self.random.integers(last) if anywhere else self.random.choice(self.starts)
        start = min(int(start), last)
        return self.stream[start : start + length]

    def _chat_row(self, length: int) -> np.ndarray:
        row: list[int] = []
        while len(row) < length:
            row += self.tokenizer.encode(self._chat()).ids
        return np.array(row[:length])

    def _chat(self) -> str:
        """One conversation: continue a sentence, or speak of a person; a system message in half of
        them.
        """
        while True:
            index = int(self.random.integers(len(self.paragraphs) - 2))
            sentences = _sentences(self.paragraphs[index])
            if len(sentences) >= 3 and 20 <= len(sentences[0]) <= 200:
                break
        kind = self.random.random()
        system = ""
        names = [n for n in NAMES if n in sentences[0]]
        if names and kind < 0.5:
            question, answer = f"Tell me about {names[0]}.", sentences
        else:
            question, answer = f"Continue: {sentences[0]}", sentences[1:]
        style = self.random.random()
        if style < 0.25:
            system, answer = "Answer in one sentence.", answer[:1]
        elif style < 0.5:
            system = "You write like Jane Austen."
        text = _message("system", system) if system else ""
        text += _message("user", question)
        return (
            text + f"<|start|>assistant<|channel|>final<|message|>{' '.join(answer[:8])}<|return|>"
        )


NAMES = (
    "Emma", "Mr. Knightley", "Harriet", "Miss Bates", "Mr. Elton", "Frank Churchill", "Fanny",
    "Edmund", "Mrs. Norris", "Sir Thomas", "Miss Crawford", "Catherine", "Mr. Tilney", "Isabella",
    "Anne", "Captain Wentworth", "Lady Russell", "Sir Walter", "Elizabeth", "Mr. Darcy", "Jane",
    "Mr. Bingley", "Mrs. Bennet", "Mr. Collins", "Lydia", "Elinor", "Marianne", "Willoughby",
    "Mrs. Jennings", "Colonel Brandon", "Edward", "Lucy",
)  # fmt: skip


def _message(role: str, text: str) -> str:
    return f"<|start|>{role}<|message|>{text}<|end|>"


def _sentences(paragraph: str) -> list[str]:
    """Split after a full stop, unless it ends a title such as Mr."""
    return re.split(r"(?<=[.!?])(?<!Mr\.)(?<!Mrs\.)(?<!Dr\.)(?<!St\.)\s+(?=[A-Z\"])", paragraph)


def _read_database(data: bytes) -> list[list[str]]:
    """Lines of every chunk that holds a novel."""
    novels = []
    while data:
        stream = zlib.decompressobj()
        novel = _string_vector(stream.decompress(data[4:]))
        if novel:
            novels.append(novel)
        data = stream.unused_data
    return novels


def _string_vector(data: bytes) -> list[str]:
    """Read R's XDR serialisation of a character vector; anything else gives no lines."""
    version, encoding_length = struct.unpack_from(">i8xi", data, 2)
    assert version == 3, f"R serialisation version {version}, expected 3"
    kind, count = struct.unpack_from(">ii", data, 18 + encoding_length)
    if kind & 0xFF != 16:
        return []
    lines, at = [], 26 + encoding_length
    for _ in range(count):
        (length,) = struct.unpack_from(">4xi", data, at)
        lines.append(data[at + 8 : at + 8 + length].decode("utf-8"))
        at += 8 + length
    return lines


def _paragraphs(lines: list[str]) -> list[str]:
    """Join wrapped lines; drop headings and the underscores that mark emphasis."""
    blocks = "\n".join(lines).split("\n\n")
    texts = [re.sub(r"\s+", " ", block.replace("_", "")).strip() for block in blocks]
    return [t for t in texts if len(t) > 1 and not t.isupper() and not re.match(HEADING, t, re.I)]
