"""Clients that read too slowly: neither the engine nor the memory waits for them."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gptoss_onnx.runtime import Sampling, Tokenizer
from gptoss_onnx.runtime.engine import Engine, TokenLogprobs
from gptoss_onnx.serving.answers import AnswerDelta
from gptoss_onnx.serving.choice_sink import AnswerEvent, Choice, ChoiceSink
from gptoss_onnx.serving.errors import ApiError
from gptoss_onnx.serving.mailbox import Mailbox
from gptoss_onnx.serving.plain_reader import PlainReader
from gptoss_onnx.serving.running import RunningAnswer
from gptoss_onnx.serving.settings import ServerSettings
from gptoss_onnx.serving.streaming import EventStream, event_bytes
from support.served import Served, wait_until


def choice(tokenizer: Tokenizer, limit: int = 200) -> Choice:
    """Return a choice that goes on up to its limit."""
    sampling = Sampling(temperature=2, seed=3, stop_tokens=())
    prompt = np.array(tokenizer.encode("Once"), np.int64)
    return Choice(prompt, sampling, limit, 0, PlainReader(tokenizer, ()), frozenset())


def test_letters_that_wait_are_bounded() -> None:
    async def main() -> None:
        mailbox: Mailbox[int] = Mailbox(limit=2000)
        assert [mailbox.put(letter, 600) for letter in range(4)] == [True, True, False, False]
        assert await mailbox.take(1) == [0, 1, 2, 3]
        assert mailbox.put(4, 1000)
        assert await mailbox.take(1) == [4]
        assert await mailbox.take(0.001) == []

    asyncio.run(main())


def test_pieces_of_a_text_wait_as_one_letter() -> None:
    """Each sender's latest letter grows; those of others in between do not matter."""

    def join(earlier: str, later: str) -> str | None:
        return earlier + later if len(earlier) < 4 else None

    async def main() -> None:
        mailbox: Mailbox[str] = Mailbox(limit=10_000)
        for letter in "abcdefg":
            mailbox.put(letter, 1, 0, join)
            mailbox.put(letter.upper(), 1, 1, join)
        assert await mailbox.take(1) == ["abcd", "ABCD", "efg", "EFG"]
        mailbox.put("h", 1, 0, join)
        assert await mailbox.take(1) == ["h"]

    asyncio.run(main())


def test_letters_of_other_threads_arrive_in_order() -> None:
    async def main() -> None:
        mailbox: Mailbox[int] = Mailbox(limit=10_000_000)
        sending = asyncio.to_thread(lambda: [mailbox.put(letter, 1) for letter in range(5000)])
        task = asyncio.create_task(sending)
        received: list[int] = []
        while len(received) < 5000:
            received += await mailbox.take(5)
        await task
        assert received == list(range(5000))

    asyncio.run(main())


def test_an_answer_nobody_takes_ends(engine: Engine, tokenizer: Tokenizer) -> None:
    """The engine goes on with others: it is not the one that waits."""

    async def main() -> None:
        settings = ServerSettings(model="demo", max_pending_bytes=900)
        ended = sum(engine.snapshot().finished.values())
        with RunningAnswer(engine, [choice(tokenizer)], settings) as running:
            wait_until(lambda: sum(engine.snapshot().finished.values()) > ended)
            assert running.usage().completion_tokens < 199
            with pytest.raises(ApiError) as caught:
                async for _ in running.batches():
                    pass
        assert caught.value.code == "slow_reader"

    asyncio.run(main())


def test_a_stream_nobody_reads_ends(engine: Engine, tokenizer: Tokenizer) -> None:
    async def main() -> None:
        settings = ServerSettings(model="demo", slow_reader_seconds=0.05)
        running = RunningAnswer(engine, [choice(tokenizer)], settings)

        async def chunks() -> Any:
            async for events in running.batches():
                yield event_bytes({"events": len(events)})

        sent = []

        async def send(message: Any) -> None:
            sent.append(message)
            if message["type"] == "http.response.body":
                await asyncio.Event().wait()  # the client's window is full

        async def receive() -> Any:
            await asyncio.Event().wait()

        await EventStream(chunks(), running, settings)({"type": "http"}, receive, send)
        assert len(sent) == 2
        await asyncio.to_thread(wait_until, lambda: engine.snapshot().active == 0)

    asyncio.run(main())


def test_a_connection_that_reads_nothing_is_closed(
    serve: Callable[..., Served], engine: Engine
) -> None:
    """Many answers asked for down one connection, of which nothing is read."""
    served = serve(slow_reader_seconds=0.3, body_seconds=60)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", served.server.port))
        head = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
        connection.setblocking(False)

        def is_closed() -> bool:
            try:
                connection.send(head * 20)
            except BlockingIOError:
                return not served.server.server_state.connections
            except (BrokenPipeError, ConnectionResetError):
                return True
            return False

        wait_until(is_closed)
    wait_until(lambda: not served.server.server_state.connections)


def test_a_cancelled_handler_cancels_its_rows(engine: Engine, tokenizer: Tokenizer) -> None:
    """Ray Serve cancels the task of a client that left, and tells it nothing."""

    async def main() -> None:
        settings = ServerSettings(model="demo")
        running = RunningAnswer(engine, [choice(tokenizer), choice(tokenizer)], settings)
        begun = asyncio.Event()

        async def chunks() -> Any:
            async for _ in running.batches():
                begun.set()
                yield b"x"

        async def send(message: Any) -> None:
            await asyncio.sleep(0.01)

        async def receive() -> Any:
            await asyncio.Event().wait()

        stream = EventStream(chunks(), running, settings)
        task = asyncio.create_task(stream({"type": "http"}, receive, send))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert all(ticket.cancelled for ticket in running._tickets)
        await asyncio.to_thread(wait_until, lambda: engine.snapshot().active == 0)

    asyncio.run(main())


class FailingReader(PlainReader):
    """A reader with a defect."""

    def push(self, token: int) -> list[AnswerDelta]:
        raise RuntimeError("a defect")


def test_a_reader_that_fails_ends_its_own_answer_alone(tokenizer: Tokenizer) -> None:
    async def main() -> None:
        mailbox: Mailbox[AnswerEvent] = Mailbox(limit=10_000)
        plain = choice(tokenizer)
        failing = Choice(
            plain.tokens, plain.sampling, 5, 0, FailingReader(tokenizer, ()), frozenset()
        )
        sink = ChoiceSink(1, failing, mailbox)
        assert sink.token(5, None) is True
        sink.finish("stop", "")
        (event,) = await mailbox.take(1)
        assert event.choice == 1 and event.failure is not None
        assert event.failure.status == 500 and "a defect" not in event.failure.message

    asyncio.run(main())


def test_logprobs_belong_to_content(tokenizer: Tokenizer) -> None:
    """Those of a held-back token wait; a control token's are told to nobody."""

    class Script(PlainReader):
        says = iter([[], [AnswerDelta("reasoning", "a")], [], [], [AnswerDelta("content", "bc")]])

        def push(self, token: int) -> list[AnswerDelta]:
            return next(self.says)

        def finish(self) -> list[AnswerDelta]:
            return []

    async def main() -> None:
        mailbox: Mailbox[AnswerEvent] = Mailbox(limit=10_000)
        plain = choice(tokenizer)
        scripted = Choice(
            plain.tokens, plain.sampling, 5, 0, Script(tokenizer, ()), frozenset({99}), logprobs=0
        )
        sink = ChoiceSink(0, scripted, mailbox)
        for token in (1, 2, 99, 4, 5):
            sink.token(token, TokenLogprobs(token, -1.0, ()))
        sink.finish("stop", "")
        reasoning, content, end = await mailbox.take(1)
        assert reasoning.logprobs == ()
        assert [entry.token for entry in content.logprobs] == [4, 5]
        assert end.finish_reason == "stop"
        assert (sink.generated, sink.reasoned) == (5, 2)

    asyncio.run(main())
