"""One checkpoint, exported once per target: every client and onnxruntime-genai say what Python and
reference say.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gptoss_onnx.custom_ops.library import library_path
from gptoss_onnx.exporter import Package
from gptoss_onnx.runtime import Sampling, Session
from gptoss_onnx.validation import validate
from support.cpp_client import build_client
from support.node_client import build_node

ROOT = Path(__file__).parents[2]
NODE = f"node {ROOT}/clients/node/dist/cli.js"
BROWSER = f"node {ROOT}/clients/browser/verify.mjs"
GENAI = ROOT / "build" / "clients" / "genai" / "bin" / "python"
TOKENS = 64

pytestmark = [pytest.mark.clients, pytest.mark.timeout(900)]


@pytest.fixture(scope="session")
def packages(
    demo_package: Package,
    packed_package: Package,
    ort_package: Package,
    ort_int8_package: Package,
) -> dict[str, Path]:
    """The demo checkpoint for our ops, also with packed projections, and for ONNX Runtime's on
    MXFP4 and on 8-bit integers.
    """
    return {
        "portable": demo_package.folder,
        "packed": packed_package.folder,
        "ort": ort_package.folder,
        "ort int8": ort_int8_package.folder,
    }


@pytest.fixture(scope="session")
def cpp(tmp_path_factory: pytest.TempPathFactory) -> str:
    client = build_client(tmp_path_factory)
    return f"{client.program} --library {client.library}"


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The command of the Node client, with the native library where it looks for it."""
    build_node(tmp_path_factory)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPTOSS_OPS_LIBRARY", str(library_path()))
        yield NODE


def short_prompt(package: Path) -> tuple[list[int], list[int]]:
    """The golden case "short": its prompt and the reference's continuation."""
    golden = json.loads((package / "golden" / "golden.json").read_text())
    case = next(case for case in golden["cases"] if case["name"] == "short")
    return case["token_ids"], case["greedy"]


def python_tokens(package: Path, prompt: list[int]) -> list[int]:
    with Session.open(package) as session:
        return list(session.generate(prompt, Sampling(stop_tokens=()), max_new_tokens=TOKENS))


def client_tokens(command: str, package: Path, prompt: list[int], *words: str) -> list[int]:
    ids = ",".join(map(str, prompt))
    asked = [
        *command.split(),
        str(package),
        "--prompt-tokens",
        ids,
        "--max-new-tokens",
        str(TOKENS),
        "--json",
        *words,
    ]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    tokens: list[int] = json.loads(done.stdout)["tokens"]
    return tokens


def genai_tokens(package: Path, arithmetic: str) -> list[int]:
    script = Path(__file__).with_name("genai_greedy.py")
    done = subprocess.run(
        [GENAI, script, package, arithmetic], capture_output=True, text=True, check=True
    )
    tokens: list[int] = json.loads(done.stdout)["short"]
    return tokens


def test_greedy_continuations_are_identical_everywhere(
    packages: dict[str, Path], cpp: str, node: str
) -> None:
    portable, packed, ort, int8 = packages.values()
    prompt, reference = short_prompt(portable)
    assert all(short_prompt(other) == (prompt, reference) for other in packages.values())
    assert len(reference) == TOKENS
    found = {
        "python, portable": python_tokens(portable, prompt),
        "python, packed": python_tokens(packed, prompt),
        "python, ort": python_tokens(ort, prompt),
        "python, ort int8": python_tokens(int8, prompt),
        "cpp": client_tokens(cpp, portable, prompt),
        "cpp, packed": client_tokens(cpp, packed, prompt),
        "cpp, ort": client_tokens(cpp, ort, prompt),
        "cpp, ort int8": client_tokens(cpp, int8, prompt),
        "node, native": client_tokens(f"{node} generate", portable, prompt, "--kernels", "native"),
        "node, packed": client_tokens(f"{node} generate", packed, prompt, "--kernels", "native"),
        "node, ort int8": client_tokens(f"{node} generate", int8, prompt),
        "browser, portable": client_tokens(f"{BROWSER} generate", portable, prompt),
        "browser, packed": client_tokens(f"{BROWSER} generate", packed, prompt),
        "browser, ort int8": client_tokens(f"{BROWSER} generate", int8, prompt),
        "onnxruntime-genai, ort": genai_tokens(ort, "default"),
        "onnxruntime-genai, ort int8": genai_tokens(int8, "exact"),
    }
    assert {name: tokens for name, tokens in found.items() if tokens != reference} == {}


@pytest.mark.parametrize(
    ("runtime", "target", "kernels"),
    [
        ("cpp", "portable", "native"),
        ("cpp", "ort", "contrib"),
        ("cpp", "ort int8", "contrib"),
        ("node", "portable", "native"),
        ("node", "ort int8", "contrib"),
        ("browser", "portable", "portable"),
        ("browser", "ort int8", "contrib"),
    ],
)
def test_validate_collects_the_verdict(
    packages: dict[str, Path],
    demo_checkpoint: Path,
    cpp: str,
    node: str,
    runtime: str,
    target: str,
    kernels: str,
) -> None:
    command = {"cpp": cpp, "node": node, "browser": BROWSER}[runtime]
    report = validate(
        packages[target], demo_checkpoint, runtimes=[runtime], clients={runtime: command}
    )
    assert report.passed, report.table()
    assert report.columns[0].kernels == kernels
    assert len(report.cells) == 6


def test_command_line_says_which_client_it_ran(
    packages: dict[str, Path], demo_checkpoint: Path, cpp: str
) -> None:
    words = [
        "validate",
        packages["portable"],
        "--reference",
        demo_checkpoint,
        "--runtime",
        "cpp",
        "--client",
        cpp,
    ]
    done = subprocess.run(
        [Path(sys.executable).with_name("gptoss-onnx"), *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "cpp: native kernels, exact, on the cpp client" in done.stdout
    assert "PASS: 8 checks" in done.stdout
