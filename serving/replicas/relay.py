"""relayed: one whole request to an application, and the messages that it answers with.

The replica's side of what `front` relays: there is no connection here, so nobody tells of a client
that left. Closing the generator, or cancelling the task that runs it, cancels the application.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from starlette.types import ASGIApp, Message

# Of a request's scope; the rest belongs to the program that took it.
_PASSED_ON = (
    "type",
    "asgi",
    "http_version",
    "method",
    "scheme",
    "path",
    "raw_path",
    "query_string",
    "root_path",
    "headers",
    "client",
    "server",
)


def passed_on(scope: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a request's scope another process gets."""
    return {key: scope[key] for key in _PASSED_ON if key in scope}


async def relayed(
    app: ASGIApp, scope: Mapping[str, Any], body: bytes
) -> AsyncGenerator[Message, None]:
    """Yield the messages of the application's answer as they come; raises what it raises."""
    messages: asyncio.Queue[Message | None] = asyncio.Queue()
    requests = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if not requests:
            await asyncio.Event().wait()  # cancelled with the application
        return requests.pop()

    async def send(message: Message) -> None:
        messages.put_nowait(message)

    async def work() -> None:
        await app(dict(scope), receive, send)

    task = asyncio.create_task(work())
    task.add_done_callback(lambda _: messages.put_nowait(None))
    try:
        while (message := await messages.get()) is not None:
            yield message
        task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
