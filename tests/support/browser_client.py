"""The browser client as the tests run it: what it imports installed once, its programs called."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.one_run import once

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "clients" / "browser"

Completed = subprocess.CompletedProcess[str]


class BrowserClient:
    """The programs of `clients/browser`, called in its folder."""

    def call(self, *command: str | Path, stdin: str | None = None) -> Completed:
        """Run a command."""
        return subprocess.run(
            [str(part) for part in command],
            cwd=CLIENT,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )

    def run(self, *arguments: str | Path) -> Completed:
        """Run `gptoss-browser`."""
        return self.call("node", "verify.mjs", *arguments)

    def strange(self, folder: Path, cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Open the page once a case, with another file in the place of one of the package; returns
        what was seen.
        """
        result = self.call("node", "test/stranger.mjs", folder, stdin=json.dumps(cases))
        assert result.returncode == 0, result.stderr
        return list(json.loads(result.stdout))

    def drive(self, folder: Path, prompt: str, screenshot: Path) -> dict[str, Any]:
        """Use the page as a person does; returns what was seen."""
        result = self.call("node", "test/drive.mjs", folder, prompt, screenshot)
        assert result.returncode == 0, result.stderr
        return dict(json.loads(result.stdout))


def build_browser(factory: pytest.TempPathFactory) -> BrowserClient:
    """Install what the client imports, where it is not yet."""
    for program in ("node", "npm"):
        assert shutil.which(program), f"{program}: found none on PATH, expected Node.js 20 or newer"
    once(factory, "browser-client", _install)
    return BrowserClient()


def _install() -> None:
    if not (CLIENT / "node_modules").is_dir():
        command = ("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
        installed = BrowserClient().call(*command)
        assert installed.returncode == 0, installed.stderr
