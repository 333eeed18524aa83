"""`pipeline("text-generation")` on a package gives the session's tokens and texts."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import AutoTokenizer, pipeline

from gptoss_onnx.errors import PackageError
from gptoss_onnx.exporter import Package
from gptoss_onnx.transformers import GptossOnnxForCausalLM
from support.fake_package import write_fake_package

TEXTS = ["It was a bright morning, and she", "Emma"]
CHAT = [{"role": "user", "content": "Tell me about Emma."}]
COUNT = 24


@pytest.fixture(scope="module")
def model(demo_package: Package) -> Iterator[GptossOnnxForCausalLM]:
    opened = GptossOnnxForCausalLM.from_pretrained(demo_package.folder, threads=1)
    with opened.session:
        yield opened


@pytest.fixture(scope="module")
def generator(model: GptossOnnxForCausalLM, demo_package: Package):
    tokenizer = AutoTokenizer.from_pretrained(demo_package.folder)
    return pipeline("text-generation", model=model, tokenizer=tokenizer, do_sample=False)


def test_a_text(generator, model: GptossOnnxForCausalLM) -> None:
    ids = model.session.tokenizer.encode(TEXTS[0])
    expected = list(model.session.generate(ids, max_new_tokens=COUNT))
    (found,) = generator(TEXTS[0], max_new_tokens=COUNT, return_tensors=True)
    assert found["generated_token_ids"] == ids + expected
    (said,) = generator(TEXTS[0], max_new_tokens=COUNT)
    assert said["generated_text"] == TEXTS[0] + model.session.tokenizer.decode(expected)


def test_a_batch_of_unlike_texts(generator, model: GptossOnnxForCausalLM) -> None:
    alone = [generator(text, max_new_tokens=COUNT) for text in TEXTS]
    assert generator(TEXTS, max_new_tokens=COUNT, batch_size=2) == alone


def test_a_chat(generator, model: GptossOnnxForCausalLM) -> None:
    tokenizer = model.session.tokenizer
    ids = tokenizer.encode_chat(CHAT)
    expected = list(model.session.generate(ids, max_new_tokens=COUNT))
    (found,) = generator(CHAT, max_new_tokens=COUNT)
    assert found["generated_text"][:-1] == CHAT
    assert found["generated_text"][-1]["content"] == tokenizer.decode(expected)


def test_it_is_a_model_that_the_pipeline_knows(
    model: GptossOnnxForCausalLM, demo_package: Package, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(demo_package.folder)
    theirs = logging.getLogger("transformers")  # which does not hand on to others
    theirs.addHandler(caplog.handler)
    try:
        pipeline("text-generation", model=model, tokenizer=tokenizer)
        assert caplog.messages == []
        theirs.error("heard")
        assert set(caplog.messages) == {"heard"}  # twice where another test lets logs go on
    finally:
        theirs.removeHandler(caplog.handler)


def test_the_configuration_is_transformers_own(
    model: GptossOnnxForCausalLM, demo_package: Package
) -> None:
    said = demo_package.manifest.model
    assert type(model.config).__name__ == "GptOssConfig"
    for key in ("hidden_size", "num_hidden_layers", "num_local_experts", "sliding_window"):
        assert getattr(model.config, key) == said[key]
    ends = model.generation_config.eos_token_id
    assert tuple(ends) == demo_package.eos_tokens


def test_an_unknown_architecture_has_a_plain_configuration(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = write_fake_package(tmp_path_factory.mktemp("package"), (0, 3, 8))
    with GptossOnnxForCausalLM.from_pretrained(folder, threads=1).session as session:
        config = GptossOnnxForCausalLM(session).config
        assert config.vocab_size == session.vocab
        assert config.max_position_embeddings == session.manifest.longest


def test_the_documented_example(demo_package: Package, capsys: pytest.CaptureFixture[str]) -> None:
    page = Path(__file__).parents[2] / "docs" / "hub.md"
    text = page.read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert example.count('"gpt-oss-20b-onnx"') == 2
    exec(example.replace('"gpt-oss-20b-onnx"', repr(str(demo_package.folder))), {})
    assert capsys.readouterr().out.startswith("It was a truth")


def test_no_package_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(PackageError, match="not a package"):
        GptossOnnxForCausalLM.from_pretrained(tmp_path_factory.mktemp("empty"))
