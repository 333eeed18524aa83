"""Packages of checkpoints in OpenAI's own layout: nothing is copied, and they compute what
transformers computes with the same weights in Hugging Face's layout.
"""

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from gptoss_onnx.errors import CheckpointError, InputError
from gptoss_onnx.exporter import Package, export
from gptoss_onnx.reference.synthetic import config_of, make_checkpoint, tiny_document
from gptoss_onnx.runtime import Session, open_package
from gptoss_onnx.validation.run import write_golden_vectors
from support.compared import compared
from support.exported import valid_manifest
from support.hugging_face import hugging_face_logits, load_hugging_face, random_tokens
from support.openai_checkpoint import shift_tensors, write_original
from support.tiny_package import CHAT_TEMPLATE, byte_tokenizer
from support.tolerances import PACKAGE_LOGITS

SINGLE = "model.safetensors"
GREEDY = 24
DOCUMENT = tiny_document(layers=2, max_position_embeddings=2048)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights in Hugging Face's layout."""
    folder = tmp_path_factory.mktemp("hf") / "checkpoint"
    make_checkpoint(folder, DOCUMENT, seed=3)
    return folder


@pytest.fixture(scope="module")
def original(theirs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in OpenAI's, where no tensor begins at a multiple of its element."""
    folder = write_original(tmp_path_factory.mktemp("openai") / "original", theirs)
    shift_tensors(folder / SINGLE, 1)
    return folder


@pytest.fixture(scope="module")
def package(original: Path) -> Package:
    return export(original, original.parent / "package")


def ranges(package: Package) -> dict[str, tuple[str, int, int]]:
    """Return file, offset and length of every initializer that lies in a file."""
    graph = onnx.load(package.graph, load_external_data=False).graph
    found = {}
    for tensor in graph.initializer:
        if tensor.data_location == tensor.EXTERNAL:
            entry = {item.key: item.value for item in tensor.external_data}
            found[tensor.name] = entry["location"], int(entry["offset"]), int(entry["length"])
    return found


def test_the_package_reads_the_checkpoints_own_file(original: Path, package: Package) -> None:
    assert (package.folder / SINGLE).samefile(original / SINGLE)
    assert not list(package.folder.glob("*assembled*"))
    manifest = valid_manifest(package.folder)
    assert (manifest.weights.layout, manifest.weights.mode) == ("openai-mxfp4", "link")
    assert manifest.weights.bit_identical
    assert manifest.lossy == ()
    rows = {"q_proj": 128, "k_proj": 32, "v_proj": 32}  # of 64 numbers in 2 bytes each
    found = ranges(package)
    offset = found["model.layers.1.self_attn.q_proj.weight"][1]
    for name, count in rows.items():
        place = found[f"model.layers.1.self_attn.{name}.weight"]
        assert place == (SINGLE, offset, count * 64 * 2)
        offset += count * 64 * 2


@pytest.mark.parametrize("kernels", ["native", "portable"])
def test_logits_and_greedy_tokens_are_those_of_transformers(
    theirs: Path, package: Package, kernels: Any
) -> None:
    model = load_hugging_face(theirs, mxfp4=True)
    with Session.open(package.folder, kernels=kernels) as session:
        prompt = random_tokens(config_of(DOCUMENT), 40, seed=2)
        with session.new_cache(1, 128) as cache:
            logits = torch.from_numpy(session.forward([prompt[:16]], cache).copy())[0]
            steps = [
                torch.from_numpy(session.forward([[token]], cache).copy())[0]
                for token in prompt[16:]
            ]
        expected = hugging_face_logits(model, prompt)
        torch.testing.assert_close(
            torch.cat([logits[-1:], *steps]), expected[15:], atol=PACKAGE_LOGITS, rtol=0
        )
        taken, tokens = list(prompt), []
        with session.new_cache(1, 128) as cache:
            ours = session.forward([prompt], cache)[0, -1]
            for _ in range(GREEDY):
                tokens.append(int(ours.argmax()))
                taken.append(int(hugging_face_logits(model, taken)[-1].argmax()))
                ours = session.forward([tokens[-1:]], cache)[0, -1]
    assert tokens == taken[len(prompt) :]


@pytest.mark.parametrize(
    "options",
    [
        {"weights": "copy"},
        {"weights": "reference"},
        {"dense": "int8"},
        {"target": "ort"},
        {"target": "ort", "dense": "checkpoint"},
    ],
    ids=lambda options: " ".join(options.values()),
)
def test_every_form_opens_and_computes_what_hugging_faces_layout_gives(
    theirs: Path, original: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    ours = export(original, tmp_path / "ours", **options)
    other = export(theirs, tmp_path / "theirs", **options)
    assert ours.manifest.weights.layout == "openai-mxfp4"
    assert ours.manifest.weights.bit_identical == other.manifest.weights.bit_identical
    logits = []
    for package in (ours, other):
        with Session.open(package.folder) as session, session.new_cache(1, 32) as cache:
            logits.append(session.forward([[1, 2, 3, 4, 5]], cache).copy())
    assert (logits[0] == logits[1]).all()


def test_validate_compares_it_with_either_layout(
    theirs: Path, original: Path, package: Package, tmp_path: Path
) -> None:
    other = export(theirs, tmp_path / "package")
    for folder, reference in (
        (package.folder, original),
        (package.folder, theirs),
        (other.folder, original),
    ):
        for comparison in compared(folder, reference).values():
            assert comparison.findings == ()


# The tokenizer


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    (folder / "generation_config.json").write_text('{"eos_token_id": 7}')
    return folder


def test_a_folder_gives_all_that_goes_with_a_tokenizer(
    original: Path, tokenizer: Path, tmp_path: Path
) -> None:
    package = export(original, tmp_path / "package", tokenizer=tokenizer)
    assert package.manifest.tokenizer_files == ("tokenizer.json", "chat_template.jinja")
    assert package.manifest.eos_tokens == (7,)
    assert open_package(package.folder).eos_tokens == (7,)
    # the checkpoint alone does not say what ends a text
    assert all(found.findings == () for found in compared(package.folder, original).values())


def test_a_package_without_a_tokenizer_comes_with_a_warning(
    original: Path, tokenizer: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    export(original, tmp_path / "without")
    assert "no tokenizer.json there, nor above an original/" in caplog.text
    caplog.clear()
    export(original, tmp_path / "with", tokenizer=tokenizer)
    assert "no tokenizer.json" not in caplog.text


def test_a_file_is_the_tokenizer_alone(original: Path, tokenizer: Path, tmp_path: Path) -> None:
    file = (tokenizer / "tokenizer.json").rename(tokenizer / "mine.json")
    package = export(original, tmp_path / "package", tokenizer=file)
    assert package.manifest.tokenizer_files == ("tokenizer.json",)
    assert (package.folder / "tokenizer.json").read_bytes() == file.read_bytes()


def test_golden_vectors_come_from_the_packages_tokenizer(
    original: Path, tokenizer: Path, tmp_path: Path
) -> None:
    package = export(original, tmp_path / "package", tokenizer=tokenizer)
    before = _golden(package.folder)
    (package.folder / "golden" / "golden.json").unlink()
    (package.folder / "golden").rmdir()
    write_golden_vectors(package.folder, original)
    assert _golden(package.folder)["cases"] == before["cases"]


def _golden(folder: Path) -> Any:
    return json.loads((folder / "golden" / "golden.json").read_text())


def test_a_tokenizer_that_is_none_is_refused(
    original: Path, tokenizer: Path, tmp_path: Path
) -> None:
    output = tmp_path / "package"
    with pytest.raises(InputError, match=r"--tokenizer: found no .*nowhere, expected"):
        export(original, output, tokenizer=tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"--tokenizer: found no .*tokenizer\.json"):
        export(original, output, tokenizer=original)
    (tokenizer / "tokenizer.json").write_text("no JSON")
    with pytest.raises(CheckpointError, match=r"tokenizer/tokenizer\.json: not JSON"):
        export(original, output, tokenizer=tokenizer)
    assert not output.exists()


def test_a_named_tokenizer_takes_the_place_of_the_checkpoints(
    theirs: Path, tokenizer: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    for path in theirs.iterdir():
        (own / path.name).hardlink_to(path)
    (own / "tokenizer_config.json").write_text("{}")
    (own / "generation_config.json").write_text('{"eos_token_id": 3}')
    package = export(own, tmp_path / "package", tokenizer=tokenizer)
    # nothing of two tokenizers is mixed, and the checkpoint's settings are its own
    assert package.manifest.tokenizer_files == ("tokenizer.json", "chat_template.jinja")
    assert package.manifest.eos_tokens == (3,)
