"""Stand-ins for programs that judge a package: a client whose verdict a test has written, and one
that does anything else.
"""

import json
import sys
from pathlib import Path
from typing import Any

Verdict = dict[str, Any]


def program(folder: Path, code: str) -> str:
    """Return the command of a program that runs `code`, whatever it is asked."""
    script = folder / f"program_{len(list(folder.glob('program_*')))}.py"
    script.write_text(code)
    return f"{sys.executable} {script}"


def saying(folder: Path, text: str, code: int = 0, error: str = "") -> str:
    """Return the command of a program that prints `text` and ends with `code`."""
    lines = [
        "import sys",
        f"print({text!r})",
        f"print({error!r}, file=sys.stderr)",
        f"sys.exit({code})",
    ]
    return program(folder, "\n".join(lines))


def verdict_of(package: Path) -> Verdict:
    """Return what a client without any error would print of a package."""
    golden = json.loads((package / "golden" / "golden.json").read_text())
    cases = [
        {
            "name": case["name"],
            "passed": True,
            "positions": len(case["positions"]),
            "max_abs": 1e-5,
            "logsumexp_abs": 1e-6,
            "greedy_tokens": len(case["greedy"]),
            "greedy_equal": len(case["greedy"]),
            "note": "",
        }
        for case in golden["cases"]
    ]
    head = {"format": "gptoss-onnx-verdict", "format_version": 1, "passed": True, "client": "cpp"}
    return {
        **head,
        "runtime": "onnxruntime 1.31.1",
        "kernels": "native",
        "activations": "exact",
        "cases": cases,
    }
