"""Completions through the openai client, and the tokens of texts."""

import httpx
import openai
import pytest

from gptoss_onnx.runtime import Tokenizer
from support.served import Served

TEXT = "The little cat"


def continued(client: openai.OpenAI, prompt: str | list[int], tokens: int = 8) -> str:
    answer = client.completions.create(
        model="demo", prompt=prompt, temperature=0, max_tokens=tokens
    )
    return answer.choices[0].text


def test_tokens_and_text_are_the_same_prompt(client: openai.OpenAI, tokenizer: Tokenizer) -> None:
    said = continued(client, TEXT)
    assert said
    assert continued(client, tokenizer.encode(TEXT)) == said


def test_several_prompts_keep_their_order(client: openai.OpenAI) -> None:
    prompts = [TEXT, "A big dog"]
    answer = client.completions.create(
        model="demo", prompt=prompts, temperature=0, max_tokens=8, n=2
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    expected = [continued(client, prompt) for prompt in prompts]
    texts = [choice.text for choice in answer.choices]
    assert texts == [expected[0]] * 2 + [expected[1]] * 2


def test_echo_repeats_the_prompt(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model="demo", prompt=TEXT, temperature=0, max_tokens=8, echo=True
    )
    assert answer.choices[0].text == TEXT + continued(client, TEXT)
    stream = client.completions.create(
        model="demo", prompt=TEXT, temperature=0, max_tokens=8, echo=True, stream=True
    )
    assert "".join(chunk.choices[0].text for chunk in stream) == answer.choices[0].text


def test_a_request_without_a_limit_gets_sixteen_tokens(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="demo", prompt=TEXT, temperature=0)
    assert answer.usage is not None and answer.usage.completion_tokens <= 16


def test_stop_and_usage_in_a_stream(client: openai.OpenAI) -> None:
    said = continued(client, TEXT)
    stop = said[3:5]
    stream = client.completions.create(
        model="demo",
        prompt=TEXT,
        temperature=0,
        max_tokens=8,
        stop=stop,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(choice.text for chunk in chunks for choice in chunk.choices)
    assert text == said[: said.index(stop)]
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens > 0


def test_logprobs_have_a_column_a_token(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model="demo", prompt=TEXT, temperature=0, max_tokens=6, logprobs=2
    )
    told = answer.choices[0].logprobs
    assert told is not None and told.tokens and told.token_logprobs and told.top_logprobs
    assert "".join(told.tokens) == answer.choices[0].text
    assert told.text_offset == [len("".join(told.tokens[:place])) for place in range(6)]
    for token, logprob, top in zip(
        told.tokens, told.token_logprobs, told.top_logprobs, strict=True
    ):
        assert top[token] == logprob == max(top.values())


@pytest.mark.parametrize("name", ["prompt", "content"])
def test_tokenize_there_and_back(server: Served, tokenizer: Tokenizer, name: str) -> None:
    text = "A café, <|end|> and 7 dogs 🐶"
    answer = httpx.post(f"{server.url}/tokenize", json={name: text}).json()
    assert answer["tokens"] == tokenizer.encode(text)
    assert answer["count"] == len(answer["tokens"])
    back = httpx.post(f"{server.url}/detokenize", json={"tokens": answer["tokens"]}).json()
    assert back[name] == text


def test_tokenize_a_chat(server: Served, client: openai.OpenAI) -> None:
    messages = [{"role": "user", "content": "Hello"}]
    answer = httpx.post(f"{server.url}/tokenize", json={"messages": messages}).json()
    made = client.chat.completions.create(
        model="demo", messages=[{"role": "user", "content": "Hello"}], max_completion_tokens=1
    )
    assert made.usage is not None and made.usage.prompt_tokens == answer["count"]


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["demo"]
    assert client.models.retrieve("demo").id == "demo"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")
