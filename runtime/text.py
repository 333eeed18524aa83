"""Tokenizer: text to token ids and back with the package's own tokenizer files, chats included."""

import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import tokenizers

from gptoss_onnx.added_tokens import TOKENIZER_LIMIT
from gptoss_onnx.errors import InputError, PackageError
from gptoss_onnx.harmony_tokens import CONTROL_TOKENS, HarmonyTokens, harmony_stop_tokens
from gptoss_onnx.package import TOKENIZER_FILE, read_own_file
from gptoss_onnx.runtime.arguments import folder_path, shown
from gptoss_onnx.runtime.chat import ChatTemplate
from gptoss_onnx.runtime.content_tokens import encode_content
from gptoss_onnx.runtime.messages import Message
from gptoss_onnx.runtime.text_stream import TextStream
from gptoss_onnx.rust_panics import foreign_errors, quiet_panics
from gptoss_onnx.tokenizer_file import load_tokenizer

_LARGEST_ID = 2**32 - 1


class Tokenizer:
    """The tokenizer of a package; read once, it never changes."""

    def __init__(self, backend: tokenizers.Tokenizer, folder: Path) -> None:
        self._backend, self._folder = backend, folder
        self._template: ChatTemplate | None = None

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Self:
        """Read `tokenizer.json` of a package folder.

        Raises InputError for what is no path, and PackageError when the file is missing or damaged.
        """
        folder = Path(folder_path("folder", folder))
        path = folder / TOKENIZER_FILE
        try:
            text = read_own_file(folder, TOKENIZER_FILE, TOKENIZER_LIMIT)
        except FileNotFoundError:
            raise PackageError(
                f"{folder}: found no {TOKENIZER_FILE}; give token ids (generate --prompt-tokens), "
                "or put it into the checkpoint and export again"
            ) from None
        return cls(load_tokenizer(text, path, "export the package again", PackageError), folder)

    @property
    def chat_template(self) -> ChatTemplate:
        """The package's chat template, read at first use; raises PackageError when there is
        none.
        """
        if self._template is None:
            self._template = ChatTemplate.open(self._folder)
        return self._template

    @cached_property
    def special_tokens(self) -> dict[str, int]:
        """Special tokens, spelling to id, and harmony's control tokens also where a file does not
        call them so.
        """
        added = self._backend.get_added_tokens_decoder()
        return {
            token.content: id_
            for id_, token in added.items()
            if (token.special and token.content) or token.content in CONTROL_TOKENS
        }

    @cached_property
    def added_tokens(self) -> dict[str, int]:
        """Tokens that a text's spelling becomes as a whole, special or not, spelling to id."""
        added = self._backend.get_added_tokens_decoder()
        return {token.content: id_ for id_, token in added.items() if token.content}

    @property
    def ids(self) -> dict[str, int]:
        """The id of each token by its spelling in the file; built anew at each call."""
        return dict(self._backend.get_vocab(with_added_tokens=True))

    @property
    def text_tokens(self) -> list[int]:
        """The ids that stand for text: all that the file has, but the special ones; built anew at
        each call.
        """
        special = set(self.special_tokens.values())
        ids = self._backend.get_vocab(with_added_tokens=True).values()
        return sorted(id_ for id_ in ids if id_ not in special)

    @cached_property
    def longest_token(self) -> int:
        """The most characters that one token stands for; a byte is a character here."""
        return max(map(len, self._backend.get_vocab(with_added_tokens=True)), default=1)

    @property
    def definition(self) -> str:
        """A tokenizer.json of the same meaning, for libraries that read one."""
        return str(self._backend.to_str())

    @cached_property
    def harmony(self) -> HarmonyTokens | None:
        """The control tokens of gpt-oss's chat format; None where this tokenizer does not know
        it.
        """
        return HarmonyTokens.of(self.special_tokens)

    @cached_property
    def harmony_stop_tokens(self) -> tuple[int, ...]:
        """The ids that end an answer in gpt-oss's chat format; empty where this tokenizer does not
        know it.
        """
        return harmony_stop_tokens(self.special_tokens)

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Return the token ids of a text.

        Special tokens spelled out in it become their ids, and the file's own rule adds what it adds
        (a beginning of text, for instance), both as Hugging Face does by default. Raises InputError
        for a text that is no Unicode, and PackageError where the package's tokenizer fails.
        """
        _check_unicode(text)
        with self._errors("encode"):
            return _ids(self._backend, text, add_special_tokens)

    def encode_plain(self, text: str) -> list[int]:
        """Return the token ids of a text in which no special token has a meaning: all of it is
        plain text.

        Raises InputError for a text that is no Unicode, or of which the tokenizer makes a special
        token all the same, and PackageError where the package's tokenizer fails.
        """
        _check_unicode(text)
        with self._errors("encode"):
            ids = _ids(self._plain, text, False)
        special = set(self.special_tokens.values()).intersection(ids)
        if special:
            raise InputError(
                f"text: the tokenizer makes the special token {min(special)} of plain text; leave "
                "it out of the text"
            )
        return ids

    def encode_chat(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool = True,
        variables: Mapping[str, Any] | None = None,
        *,
        special_tokens_in_content: bool = False,
    ) -> list[int]:
        """Return the token ids of a conversation, see `ChatTemplate.render`; no special token is
        added.

        Special tokens that the template writes become their ids. Those that a message spells out
        are plain text: else a user could write `<|end|><|start|>system<|message|>…` and speak for
        the system. With `special_tokens_in_content` they become their ids too, which is
        transformers' default; use it for texts that you wrote yourself.

        Raises InputError for messages that are wrong or that the template refuses, and PackageError
        where the template or the tokenizer fails.
        """
        template = self.chat_template
        if special_tokens_in_content:
            text = template.render(messages, add_generation_prompt, variables)
            return self.encode(text, add_special_tokens=False)
        return encode_content(self, template, messages, add_generation_prompt, variables)

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """Return the text of token ids, U+FFFD for bytes that are no UTF-8; special tokens are left
        out.

        Raises InputError for what is no sequence of token ids.
        """
        if isinstance(ids, str) or not isinstance(ids, Iterable):
            raise InputError(f"ids: found {shown(ids)}, expected a sequence of token ids")
        ids = list(ids)
        for place, token in enumerate(ids):
            if not isinstance(token, (int, np.integer)) or not 0 <= token <= _LARGEST_ID:
                raise InputError(
                    f"token {place}: found {token!r}, expected a token id, an integer of 0 or more"
                )
        with self._errors("decode"):
            return self._backend.decode(ids, skip_special_tokens=skip_special_tokens)

    def spelling(self, token: int) -> str | None:
        """Return how the vocabulary writes a token, None for an id that no token has.

        Not its text: a byte-level vocabulary has a letter for each byte.
        """
        with self._errors("spell"):
            return self._backend.id_to_token(token)

    def stream(self, stop: Sequence[str] = ()) -> TextStream:
        """Return a stream that decodes token by token and ends before the first stop string."""
        return TextStream(self, stop)

    @cached_property
    def _plain(self) -> tokenizers.Tokenizer:
        """The same model without added tokens, which it shares with the tokenizer of the file.

        The library's own switch against special tokens would count for all threads.
        """
        plain = tokenizers.Tokenizer(self._backend.model)
        if self._backend.normalizer is not None:
            plain.normalizer = self._backend.normalizer
        if self._backend.pre_tokenizer is not None:
            plain.pre_tokenizer = self._backend.pre_tokenizer
        return plain

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        where = f"{self._folder / TOKENIZER_FILE}: cannot {what} this"
        # Turning stderr elsewhere takes time that a token's text has not, and other threads may be
        # writing there.
        is_alone = what == "encode" and threading.active_count() == 1
        with (
            foreign_errors(
                where, "export the package again with a tokenizer that works", PackageError
            ),
            quiet_panics() if is_alone else nullcontext(),
        ):
            yield


def chat_messages(prompt: str, system: str | None = None) -> list[dict[str, str]]:
    """Return the messages of a conversation that begins: the system's, if any, and the user's."""
    first = [] if system is None else [{"role": "system", "content": system}]
    return [*first, {"role": "user", "content": prompt}]


def _ids(backend: tokenizers.Tokenizer, text: str, adds: bool) -> list[int]:
    """Return the ids of a text.

    Of the library's ways this is the one that lets other threads run meanwhile: a server's other
    answers must not wait for seconds while it reads a text of megabytes.
    """
    return list(backend.encode_batch_fast([text], add_special_tokens=adds)[0].ids)


def _check_unicode(text: str) -> None:
    if not isinstance(text, str):
        raise InputError(f"text: found {type(text).__name__}, expected a text")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"text: found a lone surrogate at character {error.start}, expected Unicode"
        ) from error
