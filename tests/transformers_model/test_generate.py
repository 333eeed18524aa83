"""`generate` and forward on a package: the session's tokens, and transformers' own on the
checkpoint.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import StoppingCriteria, set_seed

from gptoss_onnx.errors import InputError
from gptoss_onnx.exporter import Package
from gptoss_onnx.runtime import Sampling
from gptoss_onnx.transformers import GptossOnnxForCausalLM
from support.hugging_face import load_hugging_face

TEXTS = ("It was a bright morning, and she", "Emma")
ENDLESS = Sampling(stop_tokens=())
COUNT = 40


@pytest.fixture(scope="module")
def model(demo_package: Package) -> Iterator[GptossOnnxForCausalLM]:
    opened = GptossOnnxForCausalLM.from_pretrained(demo_package.folder, threads=1)
    with opened.session:
        yield opened


@pytest.fixture(scope="module")
def prompts(model: GptossOnnxForCausalLM) -> list[list[int]]:
    found = [model.session.tokenizer.encode(text) for text in TEXTS]
    assert len(found[0]) != len(found[1])
    return found


def _padded(prompts: list[list[int]]) -> dict[str, torch.Tensor]:
    """Return a batch as transformers' tokenizers make it, padded on the left."""
    width = max(map(len, prompts))
    padding = [width - len(prompt) for prompt in prompts]
    ids = [[0] * count + prompt for count, prompt in zip(padding, prompts, strict=True)]
    mask = [[0] * count + [1] * (width - count) for count in padding]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


def _greedy(model: GptossOnnxForCausalLM, prompt: list[int], count: int = COUNT) -> list[int]:
    return list(model.session.generate(prompt, ENDLESS, max_new_tokens=count))


def _said(model: GptossOnnxForCausalLM, prompt: list[int], **options: object) -> list[int]:
    settings = {"do_sample": False, "eos_token_id": None, "max_new_tokens": COUNT, **options}
    found = model.generate(torch.tensor([prompt]), **settings)
    return found[0, len(prompt) :].tolist()


def test_greedy_tokens_are_the_sessions(
    model: GptossOnnxForCausalLM, prompts: list[list[int]]
) -> None:
    for prompt in prompts:
        expected = _greedy(model, prompt)
        assert _said(model, prompt) == expected
        assert _said(model, prompt, use_cache=False, max_new_tokens=6) == expected[:6]


def test_greedy_tokens_are_those_of_transformers(
    model: GptossOnnxForCausalLM, prompts: list[list[int]], demo_checkpoint: Path
) -> None:
    theirs = load_hugging_face(demo_checkpoint, mxfp4=True)
    batch = _padded(prompts)
    options = {"do_sample": False, "eos_token_id": None, "max_new_tokens": COUNT}
    expected = theirs.generate(**batch, **options)
    assert model.generate(**batch, **options).tolist() == expected.tolist()


def test_a_batch_of_unlike_prompts_is_the_sessions(
    model: GptossOnnxForCausalLM, prompts: list[list[int]]
) -> None:
    batch = _padded(prompts)
    found = model.generate(**batch, do_sample=False, eos_token_id=None, max_new_tokens=COUNT)
    together = model.session.generate(prompts, ENDLESS, max_new_tokens=COUNT)
    list(together)
    width = batch["input_ids"].shape[1]
    assert found[:, width:].tolist() == together.tokens


def test_padding_anywhere_gives_the_same_logits(
    model: GptossOnnxForCausalLM, prompts: list[list[int]]
) -> None:
    plain = model(torch.tensor([prompts[0]])).logits
    assert np.array_equal(plain[0], model.session.score(prompts[0]))
    count = len(prompts[0])
    mask = torch.zeros(1, count + 5, dtype=torch.long)
    places = torch.tensor([1, *range(4, count + 2), count + 3])[:count]
    mask[0, places] = 1
    ids = torch.zeros_like(mask)
    ids[0, places] = torch.tensor(prompts[0])
    found = model(ids, attention_mask=mask).logits
    assert torch.equal(found[0, places], plain[0])
    assert not found[mask == 0].any()
    last = model(ids, attention_mask=mask, logits_to_keep=3).logits
    torch.testing.assert_close(last, found[:, -3:])
    chosen = model(ids, attention_mask=mask, logits_to_keep=torch.tensor([1, 4])).logits
    torch.testing.assert_close(chosen, found[:, [1, 4]])


def test_sampling_repeats_with_a_seed(
    model: GptossOnnxForCausalLM, prompts: list[list[int]]
) -> None:
    said = []
    for seed in (1, 1, 2):
        set_seed(seed)
        said.append(_said(model, prompts[0], do_sample=True, temperature=0.8, top_p=0.9))
    assert said[0] == said[1] != said[2]


def test_a_cache_carries_a_conversation_on(
    model: GptossOnnxForCausalLM, prompts: list[list[int]]
) -> None:
    cache = model.new_cache()
    first = _said(model, prompts[0], past_key_values=cache, max_new_tokens=8)
    assert cache.get_seq_length() == len(prompts[0]) + 7  # the last token was not run
    text = [*prompts[0], *first, *prompts[1]]
    assert _said(model, text, past_key_values=cache) == _greedy(model, text)
    cache.crop(-(cache.get_seq_length() - len(prompts[0]) + 1))
    assert _said(model, prompts[0], past_key_values=cache) == _greedy(model, prompts[0])
    cache.reset()
    assert _said(model, prompts[1], past_key_values=cache) == _greedy(model, prompts[1])
    cache.close()
    assert (cache.get_seq_length(), cache.batch_size) == (0, -1)


def test_guessing_changes_no_token(model: GptossOnnxForCausalLM, prompts: list[list[int]]) -> None:
    expected = _greedy(model, prompts[0])
    assert _said(model, prompts[0], prompt_lookup_num_tokens=4) == expected
    assert _said(model, prompts[0], assistant_model=model) == expected


def test_a_text_ends_at_the_longest_sequence(model: GptossOnnxForCausalLM) -> None:
    longest = model.session.manifest.longest
    prompt = [5] * (longest - 3)
    expected = list(model.session.generate(prompt, ENDLESS, max_new_tokens=COUNT))
    assert len(expected) == 4
    assert _said(model, prompt) == expected


def test_stopping_criteria_and_streamers_see_each_token(
    model: GptossOnnxForCausalLM, prompts: list[list[int]]
) -> None:
    expected = _greedy(model, prompts[0])

    class Fifth(StoppingCriteria):
        def __call__(self, input_ids: torch.Tensor, scores: object, **_: object) -> torch.Tensor:
            ended = input_ids.shape[1] == len(prompts[0]) + 5
            return torch.full((len(input_ids),), ended)

    class Heard:
        def __init__(self) -> None:
            self.tokens: list[int] = []

        def put(self, tokens: torch.Tensor) -> None:
            self.tokens += tokens.flatten().tolist()

        def end(self) -> None:
            pass

    heard = Heard()
    said = _said(model, prompts[0], stopping_criteria=[Fifth()], streamer=heard)
    assert said == expected[:5]
    assert heard.tokens == prompts[0] + said


def test_loss_is_the_mean_cross_entropy(
    model: GptossOnnxForCausalLM, prompts: list[list[int]]
) -> None:
    ids = torch.tensor([prompts[0]])
    logits = torch.from_numpy(model.session.score(prompts[0]))
    expected = torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:])
    assert model(ids, labels=ids).loss.item() == pytest.approx(expected.item())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num_beams": 2}, "generate: found beam_search, expected one of greedy_search"),
        ({"cache_implementation": "static"}, "cache_implementation: found 'static'"),
        ({"output_attentions": True, "return_dict_in_generate": True}, "output_attentions: a pac"),
    ],
)
def test_what_a_package_cannot_do_is_refused(
    model: GptossOnnxForCausalLM, prompts: list[list[int]], options: dict[str, object], said: str
) -> None:
    with pytest.raises(InputError, match=f"^{said}") as error:
        _said(model, prompts[0], **options)
    assert "\n" not in str(error.value)


def test_wrong_calls_are_refused(model: GptossOnnxForCausalLM, prompts: list[list[int]]) -> None:
    ids = torch.tensor([prompts[0]])
    for call, said in (
        (lambda: model(torch.zeros(1, 2)), "input_ids: found torch.float32 (1, 2)"),
        (lambda: model(None), "input_ids: found none"),
        (lambda: model(ids, torch.ones(1, 2)), "attention_mask: found shape (1, 2)"),
        (lambda: model(ids, torch.ones(1, 1, 2, 2)), "attention_mask: found shape (1, 1, 2, 2)"),
        (lambda: model(ids, past_key_values=object()), "past_key_values: found object"),
        (lambda: model(ids, inputs_embeds=ids), "inputs_embeds: a package cannot"),
        (lambda: model(ids + 10**6), "input_ids[0, 0]: found"),
        (lambda: model.save_pretrained("x"), "save_pretrained: copy the folder"),
        (lambda: model.push_to_hub("x"), "push_to_hub: use `gptoss-onnx push`"),
    ):
        with pytest.raises(InputError) as error:
            call()
        assert str(error.value).startswith(said)
    cache = model.new_cache()
    model(ids, past_key_values=cache)
    other = torch.ones(1, ids.shape[1] + 1)
    other[0, 0] = 0
    for call, said in (
        (lambda: model(ids[:, :1], other, cache), "attention_mask: found another padding"),
        (lambda: model(ids[:, :1].repeat(2, 1), None, cache), "input_ids: found 2 rows"),
        (lambda: cache.crop(3), "crop: found 3"),
        (lambda: cache.batch_repeat_interleave(2), "cache: found one of a package, which cannot"),
    ):
        with pytest.raises(InputError) as error:
            call()
        assert str(error.value).startswith(said)


def test_tensors_come_back_to_the_device_of_the_model(model: GptossOnnxForCausalLM) -> None:
    assert (model.device, model.dtype) == (torch.device("cpu"), torch.float32)
    assert model.to("cpu") is model
    assert isinstance(model(torch.tensor([[1]])).logits, torch.Tensor)
    assert np.isfinite(model(torch.tensor([[1]])).logits).all()
