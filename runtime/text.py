"""Tokenizer: text to token ids and back with the package's own tokenizer files, chats included."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import tokenizers

from gptoss_onnx.errors import InputError, PackageError
from gptoss_onnx.runtime.chat import ChatTemplate, Message
from gptoss_onnx.runtime.text_stream import TextStream

TOKENIZER_FILE = "tokenizer.json"


class Tokenizer:
    """The tokenizer of a package; read once, it never changes."""

    def __init__(self, backend: tokenizers.Tokenizer, folder: Path) -> None:
        # A file may carry settings of the training run; Hugging Face too leaves them out unless asked.
        backend.no_truncation()
        backend.no_padding()
        self._backend, self._folder = backend, folder
        self._template: ChatTemplate | None = None

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Self:
        """Read `tokenizer.json` of a package folder; raises PackageError when it is missing or damaged."""
        path = Path(folder) / TOKENIZER_FILE
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            raise PackageError(
                f"{folder}: found no {TOKENIZER_FILE}; give token ids (--prompt-tokens), or put it into the "
                "checkpoint and export again"
            ) from None
        try:
            return cls(tokenizers.Tokenizer.from_buffer(text), Path(folder))
        except Exception as error:
            raise PackageError(f"{path}: not a tokenizer ({error}); export the package again") from error

    @property
    def chat_template(self) -> ChatTemplate:
        """The package's chat template, read at first use; raises PackageError when there is none."""
        if self._template is None:
            self._template = ChatTemplate.open(self._folder)
        return self._template

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Return the token ids of a text.

        Special tokens spelled out in it become their ids, and the file's own rule adds what it adds (a
        beginning of text, for instance), both as Hugging Face does by default. Raises InputError for a text
        that is no Unicode.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"text: found a lone surrogate at character {error.start}, expected Unicode") from error
        return list(self._backend.encode(text, add_special_tokens=add_special_tokens).ids)

    def encode_chat(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool = True,
        variables: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """Return the token ids of a conversation, see `ChatTemplate.render`; no special token is added."""
        text = self.chat_template.render(messages, add_generation_prompt, variables)
        return self.encode(text, add_special_tokens=False)

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """Return the text of token ids, U+FFFD for bytes that are no UTF-8; special tokens are left out."""
        return self._backend.decode(list(ids), skip_special_tokens=skip_special_tokens)

    def stream(self, stop: Sequence[str] = ()) -> TextStream:
        """Return a stream that decodes token by token and ends before the first stop string."""
        return TextStream(self, stop)


def chat_messages(prompt: str, system: str | None = None) -> list[dict[str, str]]:
    """Return the messages of a conversation that begins: the system's, if any, and the user's."""
    first = [] if system is None else [{"role": "system", "content": system}]
    return [*first, {"role": "user", "content": prompt}]
