"""Conversation: many turns of a chat on one KV cache, of which later turns keep what they share."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Self

from gptoss_onnx.errors import InputError
from gptoss_onnx.runtime.closing import Closing
from gptoss_onnx.runtime.generation_row import FinishReason
from gptoss_onnx.runtime.harmony_message import HarmonyDelta, JoinedText
from gptoss_onnx.runtime.kv_cache import KVCache
from gptoss_onnx.runtime.sampling import Sampling
from gptoss_onnx.runtime.speculation.speculation import Speculation
from gptoss_onnx.runtime.text import Tokenizer
from gptoss_onnx.runtime.text_generation import (
    CHAT_TOKENS,
    Prompt,
    TextGeneration,
    check_prompt,
    stream_text,
)

if TYPE_CHECKING:
    from gptoss_onnx.runtime.session import Session

# tokens that can be taken back where window layers have wrapped: a long answer with its thoughts
RESERVE = 2048


class Conversation(Closing):
    """A chat with a model; a context manager that frees its cache.

    Each turn the whole conversation is rendered anew, because templates treat earlier turns and the
    last one differently: harmony's leaves out the thoughts of answers that were given. The cache is
    rewound to where the new tokens part from those it holds. If that is impossible (target `ort`
    for ONNX Runtime 1.28, or window layers that have forgotten more than `RESERVE` tokens), the
    conversation is read again from its beginning. `speculate` and `draft` are those of
    `Session.generate`; what was learned of the guesses, and the draft's cache, stay for later
    turns.

    Attributes:
        reused: tokens of the last turn's prompt that the cache held already.
    """

    def __init__(
        self,
        session: "Session",
        sampling: Sampling | None = None,
        *,
        system: str | None = None,
        max_new_tokens: int | None = None,
        variables: Mapping[str, Any] | None = None,
        tokenizer: Tokenizer | None = None,
        speculate: int = 0,
        draft: "Session | None" = None,
    ) -> None:
        self._tokenizer = session.tokenizer if tokenizer is None else tokenizer
        self._session, self._sampling = session, sampling or Sampling()
        self._max_new_tokens, self._variables = max_new_tokens, variables
        self._first: list[dict[str, Any]] = (
            [] if system is None else [{"role": "system", "content": system}]
        )
        self._speculation = Speculation.of(session, speculate, draft)
        self._longest = session.manifest.longest
        self._cache: KVCache | None = None
        self._held: list[int] = []  # the tokens in the cache
        self._running: Answer | None = None
        self._messages = list(self._first)
        self.reused = 0

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The conversation so far, as the template gets it; an answer joins it when it has
        ended.
        """
        if self._running is not None and self._running.finish_reason is not None:
            self._settle()
        return list(self._messages)

    def ask(self, text: str) -> "Answer":
        """Return the answer to a user's message, which runs while it is iterated over.

        Raises InputError when the conversation has become too long for the model; it is as before
        then.
        """
        self._settle()
        return self._answer([*self._messages, {"role": "user", "content": text}])

    def retry(self) -> "Answer":
        """Return another answer to the last message; the same one where each choice is the most
        probable token.

        Raises InputError where there is no message yet.
        """
        self._settle()
        seed = self._sampling.seed
        if seed is not None:  # the same random numbers would give the same answer
            self._sampling = replace(self._sampling, seed=seed + 1)
        return self._answer(self._messages[: self._last_question() + 1])

    def undo(self) -> str:
        """Forget the last message and its answer, and return that message; raises InputError if
        there is no message.
        """
        self._settle()
        place = self._last_question()
        question = self._messages[place]
        self._messages = self._messages[:place]
        return str(question["content"])

    def clear(self) -> None:
        """Forget all but the system's message."""
        self._settle()
        self._messages = list(self._first)

    def close(self) -> None:
        """Free the cache; the conversation can go on, and reads everything again."""
        self._settle()
        if self._cache is not None:
            self._cache.close()
        self._cache, self._held = None, []
        if self._speculation is not None:
            self._speculation.close()

    def _answer(self, messages: list[dict[str, Any]]) -> "Answer":
        session, tokenizer = self._session, self._tokenizer
        prompt = Prompt.of(messages, tokenizer, self._variables)
        check_prompt(prompt, session.vocab, self._longest)
        cache = self._room(len(prompt.ids))
        self.reused = self._rewind(cache, prompt.ids)
        generation = stream_text(
            session,
            prompt,
            tokenizer,
            self._sampling,
            self._max_new_tokens,
            cache,
            cached=self.reused,
            speculate=self._speculation or 0,
        )
        self._running = Answer(messages, prompt.ids, generation)
        return self._running

    def _room(self, prompt_tokens: int) -> KVCache:
        """Return the cache, large enough for a prompt and its answer."""
        wanted = CHAT_TOKENS if self._max_new_tokens is None else self._max_new_tokens
        capacity = min(self._longest, prompt_tokens + wanted)
        if self._cache is None:
            rewinds = self._session.contract.layout.rewinds
            self._cache = self._session.new_cache(1, capacity, RESERVE if rewinds else 0)
        elif self._cache.capacity < capacity:
            self._cache.grow(min(self._longest, max(capacity, 2 * self._cache.capacity)))
        return self._cache

    def _rewind(self, cache: KVCache, ids: tuple[int, ...]) -> int:
        """Forget what the cache holds beyond what `ids` begin with, and return how many tokens
        stay.
        """
        # the last token gives the first logits: it is run
        pairs = zip(self._held, ids[:-1], strict=False)
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        # fewer, where an interrupt came between the two
        shared = min(shared, int(cache.lengths[0]))
        shared = cache.reachable(0, shared)
        cache.rewind(shared)
        self._held = self._held[:shared]
        return shared

    def _settle(self) -> None:
        """Record the running answer, if any, as far as it has come."""
        answer, self._running = self._running, None
        if answer is None:
            return
        answer.close()
        assert self._cache is not None
        # A token that was generated but not run is not in the cache, nor is what an interrupt kept
        # from running.
        self._held = [*answer.prompt, *answer.tokens][: int(self._cache.lengths[0])]
        if answer.content or answer.finish_reason is not None:
            said = {"role": "assistant", "content": answer.content}
            self._messages = [
                *answer.messages,
                said | ({"thinking": answer.reasoning} if answer.reasoning else {}),
            ]

    def _last_question(self) -> int:
        """Return the place of the last message of the user's."""
        for place in reversed(range(len(self._messages))):
            if self._messages[place]["role"] == "user":
                return place
        raise InputError("conversation: found no message of the user's yet, expected one")


class Answer(Iterator[HarmonyDelta]):
    """An answer while it comes; the conversation takes it up when it is asked for the next thing.

    An answer that is left early is taken up as far as it was given. If nothing of it was content,
    it is forgotten together with its question.

    Attributes:
        messages: what it answers.
        prompt: the token ids of that.
    """

    def __init__(
        self,
        messages: list[dict[str, Any]],
        prompt: tuple[int, ...],
        generation: TextGeneration[HarmonyDelta],
    ) -> None:
        self._generation = generation
        self.messages, self.prompt = messages, prompt
        self._content, self._reasoning = JoinedText(), JoinedText()

    @property
    def content(self) -> str:
        """The answer so far."""
        return str(self._content)

    @property
    def reasoning(self) -> str:
        """The thoughts so far."""
        return str(self._reasoning)

    @property
    def generation(self) -> TextGeneration[HarmonyDelta]:
        """The generation: finish reason, tokens, timings."""
        return self._generation

    @property
    def tokens(self) -> list[int]:
        """The token ids so far."""
        return self._generation.tokens

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why it ended; None while it goes on, or where it was left early."""
        return self._generation.finish_reason

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> HarmonyDelta:
        piece = next(self._generation)
        if piece.kind == "content":
            self._content.add(piece)
        elif piece.kind == "reasoning":
            self._reasoning.add(piece)
        return piece

    def close(self) -> None:
        """Leave it as far as it has come."""
        self._generation.close()
