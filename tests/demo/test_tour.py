"""The notebook: clean as it is kept, and its cells run one after the other."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[2] / "demo" / "tour.ipynb"


def _cells() -> list[dict[str, Any]]:
    document = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (document["nbformat"], document["nbformat_minor"]) == (4, 5)
    return document["cells"]


def test_it_is_kept_without_outputs() -> None:
    cells = _cells()
    assert {cell["cell_type"] for cell in cells} == {"markdown", "code"}
    assert len({cell["id"] for cell in cells}) == len(cells)
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["id"] for cell in code if cell["outputs"] or cell["execution_count"]] == []


@pytest.mark.slow
def test_its_cells_run(tmp_path: Path) -> None:
    """As a program: the cells are plain Python, so that Jupyter itself need not be there."""
    pytest.importorskip("matplotlib", reason="the extra notebook is not installed")
    texts = ["".join(cell["source"]) for cell in _cells() if cell["cell_type"] == "code"]
    shown = "plt.show = lambda: plt.savefig(f'figure-{len(plt.get_fignums())}.png')"
    program = tmp_path / "tour.py"
    program.write_text("\n".join([texts[0], shown, *texts[1:]]), encoding="utf-8")
    (tmp_path / "demo").symlink_to(NOTEBOOK.parent)
    result = subprocess.run(
        [sys.executable, program.name],
        cwd=tmp_path,
        env=os.environ | {"MPLBACKEND": "agg", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "PASS: " in result.stdout
    figures = list(tmp_path.glob("figure-*.png"))
    assert len(figures) == 3
    assert min(path.stat().st_size for path in figures) > 10_000
