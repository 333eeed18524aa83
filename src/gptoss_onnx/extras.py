"""The command that installs an optional part of this project, as it works where this copy of it
came from.
"""

from pathlib import Path


def install_command(extra: str) -> str:
    """Return the pip command that brings `extra`, for instance `export` or `cpu`.

    In a checkout it names the checkout, because the project may be on no index; elsewhere it names
    the project.
    """
    checkout = checkout_of(Path(__file__))
    return (
        f'pip install "gptoss-onnx[{extra}]"'
        if checkout is None
        else f"pip install '{_here(checkout)}[{extra}]'"
    )


def checkout_of(file: Path) -> Path | None:
    """Return the root of the checkout that `file` is imported from (`src/gptoss_onnx/…`), or None
    if installed.
    """
    root = file.resolve().parents[2]
    is_checkout = file.resolve().parent.parent.name == "src" and (root / "pyproject.toml").is_file()
    return root if is_checkout else None


def _here(checkout: Path) -> str:
    return "." if Path.cwd() == checkout else str(checkout)
