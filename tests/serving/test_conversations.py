"""Many conversations at a time: each gets what it would have got alone."""

import asyncio
import random
from typing import Any

import openai

from gptoss_onnx.runtime import Sampling, Session, Tokenizer
from gptoss_onnx.serving.prompts import ChatPrompt, render_chat
from support.served import Served

CONVERSATIONS, AT_A_TIME, TURNS = 24, 8, 2
WORDS = ["dog", "cat", "sun", "boat", "and", "the", "ran", "big", "red", "Tom"]


def first_message(number: int) -> str:
    draw = random.Random(number)
    return " ".join(draw.choice(WORDS) for _ in range(draw.choice([2, 9, 40])))


def limit(number: int) -> int:
    return 3 + number % 14


def alone(session: Session, tokenizer: Tokenizer, number: int) -> list[str]:
    """Return the answers of a conversation that runs on the bare session."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": first_message(number)}]
    answers = []
    for _ in range(TURNS):
        prompt = render_chat(tokenizer, ChatPrompt(messages=messages))
        said = session.generate(prompt, Sampling(), max_new_tokens=limit(number))
        answers.append(tokenizer.decode(said))
        messages += [
            {"role": "assistant", "content": answers[-1]},
            {"role": "user", "content": "And then?"},
        ]
    return answers


async def together(client: openai.AsyncOpenAI, number: int, turns: asyncio.Semaphore) -> list[str]:
    """Return the answers of a conversation that the server has beside others."""
    messages: Any = [{"role": "user", "content": first_message(number)}]
    answers = []
    for _ in range(TURNS):
        asked: dict[str, Any] = {
            "model": "demo",
            "messages": messages,
            "temperature": 0,
            "max_completion_tokens": limit(number),
        }
        async with turns:
            if number % 2:
                stream = await client.chat.completions.create(stream=True, **asked)
                pieces = [chunk.choices[0].delta.content async for chunk in stream]
                answers.append("".join(piece or "" for piece in pieces))
            else:
                whole = await client.chat.completions.create(**asked)
                answers.append(whole.choices[0].message.content or "")
        messages = [
            *messages,
            {"role": "assistant", "content": answers[-1]},
            {"role": "user", "content": "And then?"},
        ]
    return answers


def test_greedy_answers_are_those_of_the_session(
    server: Served, session: Session, tokenizer: Tokenizer
) -> None:
    async def main() -> list[list[str]]:
        turns = asyncio.Semaphore(AT_A_TIME)
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
            conversations = [together(client, number, turns) for number in range(CONVERSATIONS)]
            return await asyncio.gather(*conversations)

    expected = [alone(session, tokenizer, number) for number in range(CONVERSATIONS)]
    assert asyncio.run(main()) == expected
    assert all(answer for answers in expected for answer in answers)
