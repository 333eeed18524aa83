"""`bench` on small packages: one JSON document of known shape, lines for people, and mistakes in
one line.
"""

import itertools
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner, Result

from gptoss_onnx.bench import machine
from gptoss_onnx.bench.stopwatch import random_tokens
from gptoss_onnx.cli import main
from gptoss_onnx.custom_ops import library
from gptoss_onnx.manifest import Manifest
from support.fake_package import write_fake_package
from support.tiny_package import LONGEST, tiny_package

COUNT, BYTES, TIME = (
    {"type": "integer", "minimum": 1},
    {"type": "integer", "minimum": 0},
    {"type": "number", "minimum": 0},
)
LIBRARY = library.library_path()
LAST_LEVEL_CACHE = machine.last_level_cache
SMALL = ("--prefill", 8, "--decode", 5, "--rounds", 2, "--threads", 1)


def exactly(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": [*properties],
        "additionalProperties": False,
    }


def or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


TEXT = {"type": "string", "minLength": 1}
SPREAD = exactly(median=TIME, p10=TIME, p90=TIME)
TIMING = exactly(
    tokens=COUNT, context=BYTES, runs=COUNT, milliseconds_per_token=SPREAD, tokens_per_second=SPREAD
)
PEAKS = (
    "fma_gflops",
    "bf16_gflops",
    "int8_gops",
    "int16_gops",
    "amx_bf16_gflops",
    "amx_int8_gops",
)
MACHINE = exactly(
    cpu=TEXT,
    cores=COUNT,
    threads=COUNT,
    system=TEXT,
    read_gb_s=TIME,
    **{peak: or_null(TIME) for peak in PEAKS},
)
DOCUMENT = exactly(
    package=TEXT,
    kernels={"enum": ["native", "portable"]},
    activations={"enum": ["exact", "bf16", "int8"]},
    kv_dtype={"enum": ["float32", "float16", "bfloat16"]},
    threads=or_null(COUNT),
    onnxruntime=TEXT,
    open_seconds=TIME,
    first_token_seconds=TIME,
    prefill=TIMING,
    decode=TIMING,
    memory=exactly(anonymous_bytes=or_null(COUNT), kv_cache_bytes=COUNT),
    bytes_per_token=exactly(
        dense=COUNT, experts=BYTES, embedding=BYTES, kv_cache=BYTES, total=COUNT
    ),
    floor=or_null(exactly(read_gb_s=SPREAD, milliseconds=TIME, share=SPREAD)),
    machine=or_null(exactly(before=MACHINE, after=MACHINE)),
    unmeasured=or_null(TEXT),
)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_package(tmp_path_factory)


@pytest.fixture(autouse=True)
def _small_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "READ_BYTES", 1 << 20)
    monkeypatch.setattr(machine, "ROUNDS", 1)
    # these packages fit into any cache
    monkeypatch.setattr(machine, "last_level_cache", lambda: None)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["bench", *map(str, arguments)], prog_name="gptoss-onnx")


def document_of(*arguments: object) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    document: dict[str, Any] = json.loads(result.stdout)
    jsonschema.validate(document, DOCUMENT)
    return document


def test_json_holds_what_was_asked_for(package: Path) -> None:
    document = document_of(package, *SMALL, "--context", 40)
    assert document["threads"] == 1
    assert [document["prefill"][key] for key in ("tokens", "context", "runs")] == [8, 40, 2]
    assert [document["decode"][key] for key in ("tokens", "context", "runs")] == [1, 40, 5]
    parts = document["bytes_per_token"]
    assert parts.pop("total") == sum(parts.values())
    assert parts["kv_cache"] > document_of(package, *SMALL)["bytes_per_token"]["kv_cache"]
    measured = (document["floor"], document["machine"])
    assert all(part is not None for part in measured) == (LIBRARY is not None)
    assert (document["unmeasured"] is None) == (LIBRARY is not None)


def test_a_package_without_experts_needs_no_sizes_of_the_model(tmp_path: Path) -> None:
    package = write_fake_package(tmp_path / "package")
    assert not {"vocab_size", "num_local_experts"} & Manifest.read(package).model.keys()
    parts = document_of(package, *SMALL)["bytes_per_token"]
    assert parts["experts"] == 0
    assert parts["dense"] > 0


def test_the_last_token_that_the_model_takes_is_timed(package: Path) -> None:
    context = LONGEST - 5
    assert (
        document_of(package, "--prefill", 1, "--decode", 5, "--context", context)["decode"]["runs"]
        == 5
    )


def test_lines_for_people(package: Path) -> None:
    result = run(package, *SMALL)
    assert (result.exit_code, result.stderr) == (0, "")
    head, *lines = result.stdout.splitlines()
    assert head.startswith(f"{package} (")
    keys = [line.split()[0] for line in lines]
    assert keys[:6] == ["open", "prefill", "decode", "memory", "reads", "floor"]
    assert "8 tokens at the start" in lines[1]


def test_without_the_library_the_floor_is_not_measured(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "library_path", lambda: None)
    machine._functions.cache_clear()
    document = document_of(package, *SMALL)
    assert document["kernels"] == "portable"
    assert (document["floor"], document["machine"]) == (None, None)
    assert "reinstall" in document["unmeasured"]
    assert "floor    not measured: native library" in run(package, *SMALL).stdout


@pytest.mark.skipif(LIBRARY is None, reason="the native library measures the floor")
def test_weights_that_fit_into_the_cache_have_no_floor(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A share of the memory's speed would mean nothing: such weights are not read from memory."""
    monkeypatch.setattr(machine, "last_level_cache", lambda: 32 << 20)
    document = document_of(package, *SMALL)
    assert document["floor"] is None
    assert document["machine"] is not None
    assert "fit into the processor's cache (33.6 MB)" in document["unmeasured"]
    lines = run(package, *SMALL).stdout.splitlines()
    floor = next(line for line in lines if line.startswith("  floor"))
    assert "so memory sets no floor" in floor
    assert "%" not in floor
    monkeypatch.setattr(machine, "last_level_cache", lambda: 1000)
    assert document_of(package, *SMALL)["floor"] is not None


def test_caches_are_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four cores, two of which share a last level each; what the system does not say is not
    guessed.
    """
    monkeypatch.setattr(machine, "CPUS", tmp_path)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2, 3})
    assert LAST_LEVEL_CACHE() is None
    for core in range(4):
        for index, size in enumerate(("32K", "32K", "1024K", "32768K")):
            folder = tmp_path / f"cpu{core}" / "cache" / f"index{index}"
            folder.mkdir(parents=True)
            (folder / "size").write_text(f"{size}\n")
            (folder / "shared_cpu_list").write_text("0-1\n" if core < 2 else "2-3\n")
    assert LAST_LEVEL_CACHE() == 2 * (32 << 20)


def test_progress_goes_to_stderr(package: Path) -> None:
    result = run(package, *SMALL, "--kernels", "portable", "--json", "--verbose")
    assert json.loads(result.stdout)["kernels"] == "portable"
    assert "decode of 5 tokens ..." in result.stderr


def test_no_token_comes_twice_in_a_row() -> None:
    tokens = list(itertools.islice(random_tokens(vocab=3), 200))
    assert set(tokens) == {0, 1, 2}
    assert all(first != second for first, second in itertools.pairwise(tokens))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--decode", 0), "--decode"),
        (("--prefill", -1), "--prefill"),
        (("--context", "many"), "--context"),
        (("--threads", 0), "--threads"),
        (("--context", LONGEST), f"found {LONGEST + 8} tokens, expected at most {LONGEST}"),
        (("--kernels", "portable", "--activations", "int8"), "activations int8"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_mistakes_are_told_in_one_line(
    package: Path, arguments: tuple[object, ...], message: str
) -> None:
    result = run(package, *SMALL, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_no_package_is_named(tmp_path: Path) -> None:
    result = run(tmp_path)
    assert result.exit_code == 2
    assert "not a package" in result.stderr
