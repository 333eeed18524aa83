"""ServerState: what all requests of one server share; it belongs to one app, and ends with it."""

import asyncio
import time
import weakref
from collections.abc import Callable, Sequence
from typing import TypeVar

from starlette.requests import Request

from gptoss_onnx.runtime.engine import Engine
from gptoss_onnx.runtime.stops import end_tokens
from gptoss_onnx.runtime.text import Tokenizer
from gptoss_onnx.serving.body_room import BodyRoom
from gptoss_onnx.serving.choice_sink import Choice
from gptoss_onnx.serving.constraints import ConstraintMaker
from gptoss_onnx.serving.errors import unavailable
from gptoss_onnx.serving.fingerprint import fingerprint
from gptoss_onnx.serving.metrics import ServerMetrics
from gptoss_onnx.serving.running import RunningAnswer
from gptoss_onnx.serving.settings import ServerSettings
from gptoss_onnx.serving.token_bytes import TokenBytes

STOPPING = "the server is stopping; send the request again later"
Result = TypeVar("Result")
_SLOW = 2  # schemas and long texts that are worked on at once; asyncio has five threads at least


class ServerState:
    """The engine, what is known of its model, and the requests in work.

    Handlers find it with `state_of(request)`. Used on the event loop, but for `stop`.

    Attributes:
        vocab: ids that the model knows.
        control: ids of special tokens, which are no text.
        chat_ends: ids that end an answer of a chat.
        text_ends: ids that end a text.
        constraints: makes what holds answers to schemas and tools.
        token_bytes: what logprobs say of tokens.
        created: when the server began, in seconds since 1970.
        fingerprint: `system_fingerprint`: of the weights and what computes with them.
        is_stopping: no more requests are taken; those taken end in peace.
        longest_text: characters of a prompt beyond which it cannot fit, whatever it says.
        body_room: what the bodies of requests take while they are read.
        active: requests in work, but for those that ask how the server is.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: Tokenizer,
        settings: ServerSettings,
        metrics: ServerMetrics,
    ) -> None:
        self.engine, self.tokenizer, self.settings = engine, tokenizer, settings
        self.metrics = metrics
        package = engine.session.package
        self.vocab = engine.session.vocab
        self.control = frozenset(tokenizer.special_tokens.values())
        self.chat_ends = end_tokens(package, tokenizer, True, self.vocab)
        self.text_ends = end_tokens(package, tokenizer, False, self.vocab)
        self.fingerprint = fingerprint(package)
        self.constraints = ConstraintMaker(tokenizer, self.vocab, self.chat_ends)
        self.token_bytes = TokenBytes(tokenizer)
        self.created = int(time.time())
        self.is_stopping = False
        self.active = 0
        self.body_room = BodyRoom(settings.max_bodies_bytes)
        self.longest_text = engine.capacity * tokenizer.longest_token
        self._slow_places = asyncio.Semaphore(_SLOW)
        self._running: weakref.WeakSet[RunningAnswer] = weakref.WeakSet()

    @property
    def is_ready(self) -> bool:
        """Whether a request sent now would be taken, if the queue has room."""
        return not self.is_stopping and not self.engine.snapshot().draining

    def stop(self) -> None:
        """Take no more requests; from any thread."""
        self.is_stopping = True

    def start(self, choices: Sequence[Choice], owner: str) -> RunningAnswer:
        """Submit the choices of one request, whose prompts see the saved rows of `owner`; raises
        ApiError as `RunningAnswer` does.
        """
        if self.is_stopping:
            raise unavailable(STOPPING)
        running = RunningAnswer(self.engine, choices, self.settings, owner)
        self._running.add(running)
        return running

    async def slowly(self, work: Callable[[], Result]) -> Result:
        """Run what may take seconds of a thread: as `in_thread`, but few at a time.

        So there are threads left for what is quick, whatever strangers send. A place is taken until
        the thread is done, also where its client has left.
        """
        await self._slow_places.acquire()
        task = asyncio.create_task(in_thread(work))
        task.add_done_callback(lambda _: self._slow_places.release())
        return await asyncio.shield(task)

    def cancel_all(self) -> None:
        """Cancel every answer in work; their clients are told that the server stops."""
        for running in self._running:
            running.close()


def state_of(request: Request) -> ServerState:
    """Return what the request's server shares."""
    state = request.app.state.serving
    assert isinstance(state, ServerState)
    return state


async def in_thread(work: Callable[[], Result]) -> Result:
    """Run what takes long, such as the rendering of a long prompt, beside the event loop."""
    return await asyncio.to_thread(work)
