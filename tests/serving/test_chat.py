"""Chat completions through the openai client: what it sends, and what it reads out of answers."""

import json

import httpx
import openai
from openai.types.chat import ChatCompletionMessageParam

from gptoss_onnx.runtime import Sampling, Session, Tokenizer
from gptoss_onnx.serving.prompts import ChatPrompt, render_chat
from support.served import Served

ASKED: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Once upon a time"}]
GREEDY = 0.0


def said_by_session(session: Session, tokenizer: Tokenizer, tokens: int) -> str:
    """Return what the session itself says to the same prompt."""
    prompt = render_chat(tokenizer, ChatPrompt(messages=ASKED))
    sampling = Sampling(temperature=GREEDY, seed=0)
    return tokenizer.decode(session.generate(prompt, sampling, max_new_tokens=tokens))


def test_answer(client: openai.OpenAI, session: Session, tokenizer: Tokenizer) -> None:
    answer = client.chat.completions.create(
        model="demo", messages=ASKED, temperature=GREEDY, max_completion_tokens=12
    )
    assert answer.object == "chat.completion"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content == said_by_session(session, tokenizer, 12)
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.system_fingerprint is not None
    usage = answer.usage
    assert usage is not None and usage.completion_tokens_details is not None
    assert usage.prompt_tokens == len(render_chat(tokenizer, ChatPrompt(messages=ASKED)))
    assert 0 < usage.completion_tokens <= 12
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.completion_tokens_details.reasoning_tokens == 0


def test_stream_says_the_same(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(
        model="demo", messages=ASKED, temperature=GREEDY, max_completion_tokens=12, n=2
    )
    chunks = list(
        client.chat.completions.create(
            model="demo",
            messages=ASKED,
            temperature=GREEDY,
            max_completion_tokens=12,
            n=2,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    texts = ["", ""]
    reasons: list[str | None] = [None, None]
    for chunk in chunks[:-1]:
        assert chunk.usage is None and len(chunk.choices) == 1
        choice = chunk.choices[0]
        assert reasons[choice.index] is None, "nothing comes after the end"
        texts[choice.index] += choice.delta.content or ""
        reasons[choice.index] = choice.finish_reason
    assert texts == [choice.message.content for choice in whole.choices]
    assert reasons == [choice.finish_reason for choice in whole.choices]
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    assert [chunk.choices[0].delta.role for chunk in chunks[:2]] == ["assistant"] * 2
    last = chunks[-1].usage
    assert last is not None and whole.usage is not None and chunks[-1].choices == []
    assert last.completion_tokens == whole.usage.completion_tokens
    assert last.prompt_tokens == whole.usage.prompt_tokens


def test_stream_ends_with_done(server: Served) -> None:
    body = {"messages": ASKED, "stream": True, "max_tokens": 2}
    answer = httpx.post(f"{server.url}/v1/chat/completions", json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = answer.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    for event in events[:-2]:
        assert json.loads(event.removeprefix("data: "))["object"] == "chat.completion.chunk"


def test_seed_chooses_the_answers(client: openai.OpenAI) -> None:
    def answers(seed: int) -> list[str | None]:
        made = client.chat.completions.create(
            model="demo", messages=ASKED, temperature=2, seed=seed, n=2, max_completion_tokens=16
        )
        return [choice.message.content for choice in made.choices]

    first = answers(7)
    assert answers(7) == first
    assert first[0] != first[1]
    assert answers(8) != first
    assert answers(-7) == answers(-7)


def test_stop_text_is_cut_off(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(
        model="demo", messages=ASKED, temperature=GREEDY, max_completion_tokens=12
    )
    said = whole.choices[0].message.content
    assert said is not None and len(said) > 8
    stop = said[4:7]
    expected = said[: said.index(stop)]
    cut = client.chat.completions.create(
        model="demo", messages=ASKED, temperature=GREEDY, max_completion_tokens=12, stop=[stop]
    )
    assert cut.choices[0].message.content == expected
    assert cut.choices[0].finish_reason == "stop"


def test_limit_of_tokens(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="demo", messages=ASKED, temperature=GREEDY, max_tokens=1
    )
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None and answer.usage.completion_tokens == 1


def test_logprobs_spell_the_content(client: openai.OpenAI) -> None:
    asked = {"logprobs": True, "top_logprobs": 3, "temperature": GREEDY}
    answer = client.chat.completions.create(
        model="demo",
        messages=ASKED,
        max_completion_tokens=10,
        **asked,  # type: ignore[arg-type]  # a mapping of several types
    )
    choice = answer.choices[0]
    assert choice.logprobs is not None and choice.logprobs.content is not None
    spelled = b"".join(bytes(entry.bytes or ()) for entry in choice.logprobs.content)
    assert spelled.decode() == choice.message.content
    for entry in choice.logprobs.content:
        assert entry.logprob <= 0
        assert len(entry.top_logprobs) == 3
        # greedy: the chosen token is the most probable
        assert entry.top_logprobs[0].token == entry.token
        assert entry.top_logprobs[0].logprob == entry.logprob


def test_logprobs_in_a_stream_are_the_same(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(
        model="demo",
        messages=ASKED,
        temperature=GREEDY,
        max_completion_tokens=10,
        logprobs=True,
        top_logprobs=2,
    )
    stream = client.chat.completions.create(
        model="demo",
        messages=ASKED,
        temperature=GREEDY,
        max_completion_tokens=10,
        logprobs=True,
        top_logprobs=2,
        stream=True,
    )
    told = []
    for chunk in stream:
        logprobs = chunk.choices[0].logprobs
        if logprobs is not None and logprobs.content is not None:
            assert chunk.choices[0].delta.content
            told += logprobs.content
    assert whole.choices[0].logprobs is not None
    assert told == whole.choices[0].logprobs.content


def test_bias_and_ban(client: openai.OpenAI, tokenizer: Tokenizer) -> None:
    token = tokenizer.encode("dragon")[0]
    answer = client.chat.completions.create(
        model="demo",
        messages=ASKED,
        temperature=GREEDY,
        max_completion_tokens=3,
        logit_bias={str(token): 100},
    )
    assert answer.choices[0].message.content == tokenizer.decode([token] * 3)


def test_a_second_turn_comes_out_of_the_prefix_cache(client: openai.OpenAI) -> None:
    asked: list[ChatCompletionMessageParam] = [{"role": "user", "content": "A dog and a cat " * 8}]
    first = client.chat.completions.create(
        model="demo", messages=asked, temperature=GREEDY, max_completion_tokens=6
    )
    said = first.choices[0].message.content
    again = client.chat.completions.create(
        model="demo",
        messages=[
            *asked,
            {"role": "assistant", "content": said},
            {"role": "user", "content": "And then?"},
        ],
        temperature=GREEDY,
        max_completion_tokens=6,
    )
    usage = again.usage
    assert usage is not None and usage.prompt_tokens_details is not None
    assert first.usage is not None
    cached = usage.prompt_tokens_details.cached_tokens
    assert cached is not None and cached >= first.usage.prompt_tokens - 8


def test_reasoning_is_accepted_back(server: Served) -> None:
    messages = [
        *ASKED,
        {"role": "assistant", "content": "Yes.", "reasoning_content": "I think."},
        {"role": "assistant", "content": "Yes.", "reasoning": "I think."},
        {"role": "user", "content": [{"type": "text", "text": "Go on."}]},
    ]
    body = {"messages": messages, "max_tokens": 1}
    assert httpx.post(f"{server.url}/v1/chat/completions", json=body).status_code == 200


def test_unknown_fields_are_ignored(server: Served) -> None:
    body = {"messages": ASKED, "max_tokens": 1, "wishes": {"deep": [1]}, "user": "me", "n": None}
    assert httpx.post(f"{server.url}/v1/chat/completions", json=body).status_code == 200
