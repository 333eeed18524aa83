"""What one client does: it asks in many ways, leaves when it likes, and reads slowly."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
WORDS = (
    "It",
    "was",
    "a",
    "bright",
    "morning",
    "and",
    "she",
    "said",
    "that",
    "nobody",
    "had",
    "seen",
)
LONG_PROMPT = 120  # words
MOST_WAIT = 3.0  # seconds that a client waits when it is told to come again
REQUEST_SECONDS = 120.0


@dataclass
class Seen:
    """What all clients saw: how often each thing happened, and what must not happen at all."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


class Client:
    """One client, whose choices are drawn from a seed."""

    def __init__(self, number: int, http: httpx.AsyncClient, seen: Seen) -> None:
        self._random = random.Random(number)
        self._http, self._seen = http, seen
        self._ways = {
            self.read_whole: 3,
            self.read_stream: 5,
            self.leave_stream: 4,
            self.leave_before_the_answer: 2,
            self.read_slowly: 2,
            self.ask_for_several: 1,
            self.ask_wrongly: 1,
        }

    async def run(self, seconds: float) -> None:
        """Ask again and again for a while."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while loop.time() < end:
            (way,) = self._random.choices(list(self._ways), list(self._ways.values()))
            try:
                await asyncio.wait_for(way(), REQUEST_SECONDS)
            except (httpx.HTTPError, TimeoutError, ValueError, KeyError) as error:
                self._seen.faults.append(f"{way.__name__}: {type(error).__name__} {error}"[:300])
            await asyncio.sleep(self._random.random() * 0.2)

    async def read_whole(self) -> None:
        """Ask for an answer in one piece."""
        answer = await self._http.post(CHAT, json=self._chat(stream=False))
        if await self._admitted(answer):
            json.loads(answer.text)["choices"][0]["message"]["role"]
            self._seen.counts["whole"] += 1

    async def read_stream(self) -> None:
        """Read a stream to its end."""
        await self._stream(CHAT, self._chat(stream=True), None, 0.0)

    async def leave_stream(self) -> None:
        """Read some events, and close the connection."""
        await self._stream(CHAT, self._chat(stream=True), self._random.randrange(8), 0.0)

    async def leave_before_the_answer(self) -> None:
        """Give up waiting for an answer in one piece."""
        try:
            seconds = self._random.random() * 0.3
            answer = await asyncio.wait_for(
                self._http.post(CHAT, json=self._chat(stream=False)), seconds
            )
        except TimeoutError:
            self._seen.counts["left before the answer"] += 1
        else:
            await self._admitted(answer)

    async def read_slowly(self) -> None:
        """Read a stream with rests in between."""
        await self._stream(TEXT, self._text(stream=True), None, self._random.random() * 0.3)

    async def ask_for_several(self) -> None:
        """Ask for some choices of one prompt."""
        answer = await self._http.post(TEXT, json=self._text(stream=False) | {"n": 3})
        if await self._admitted(answer):
            if len(json.loads(answer.text)["choices"]) != 3:
                self._seen.faults.append("n=3: found another number of choices")
            self._seen.counts["several"] += 1

    async def ask_wrongly(self) -> None:
        """Send what has to be refused."""
        answer = await self._http.post(CHAT, content=self._random.choice(('{"messages": 1}', "{")))
        if answer.status_code not in (400, 415):
            self._seen.faults.append(f"a wrong request: found status {answer.status_code}")
        self._seen.counts["wrong"] += 1

    async def _stream(
        self, path: str, body: dict[str, Any], leave_after: int | None, rest: float
    ) -> None:
        async with self._http.stream("POST", path, json=body) as answer:
            if not await self._admitted(answer):
                return
            number, last = 0, ""
            async for data in _data(answer):
                number, last = number + 1, data
                if leave_after is not None and number > leave_after:
                    self._seen.counts["left a stream"] += 1
                    return
                if rest and number % 8 == 0:
                    await asyncio.sleep(rest)
        if last != "[DONE]":
            self._seen.faults.append(f"a stream ended with {last!r:.200}, expected [DONE]")
        self._seen.counts["streams"] += 1

    async def _admitted(self, answer: httpx.Response) -> bool:
        """Say whether a request was taken; wait where the queue is full."""
        if answer.status_code == 200:
            return True
        if answer.status_code == 429:
            self._seen.counts["told to come again"] += 1
            await asyncio.sleep(min(float(answer.headers["retry-after"]), MOST_WAIT))
        else:
            text = (await answer.aread()).decode(errors="replace")
            self._seen.faults.append(f"found status {answer.status_code}: {text[:200]}")
        return False

    def _chat(self, stream: bool) -> dict[str, Any]:
        messages = [{"role": "user", "content": self._words()}]
        if self._random.random() < 0.3:  # most of it is what others begin with, too
            messages.insert(0, {"role": "system", "content": " ".join(WORDS * 3)})
        most = self._random.randrange(4, 60)
        return {"messages": messages, "stream": stream, "max_completion_tokens": most}

    def _text(self, stream: bool) -> dict[str, Any]:
        return {"prompt": self._words(), "stream": stream, "max_tokens": 40, "seed": 1}

    def _words(self) -> str:
        most = LONG_PROMPT if self._random.random() < 0.1 else 20
        return " ".join(self._random.choices(WORDS, k=self._random.randrange(1, most)))


async def _data(answer: httpx.Response) -> AsyncIterator[str]:
    async for line in answer.aiter_lines():
        if line.startswith("data: "):
            yield line.removeprefix("data: ")
