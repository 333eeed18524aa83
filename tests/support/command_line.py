"""Run the command line, in this process or in one of its own."""

import subprocess
import sys
from typing import Any

from click.testing import CliRunner, Result

from gptoss_onnx.cli import main

CODE = "from gptoss_onnx.cli import main; main(prog_name='gptoss-onnx')"


def run(*arguments: object, **options: Any) -> Result:
    """Run a command line in this process; `options` are click's, such as `input`."""
    words = [str(argument) for argument in arguments]
    return CliRunner().invoke(main, words, prog_name="gptoss-onnx", **options)


def done(*arguments: object, **options: Any) -> str:
    """Run a command line that succeeds without a word on stderr, and return its stdout."""
    result = run(*arguments, **options)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def in_process_of_its_own(
    *arguments: object, code: str = CODE, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run a command line in a new Python process; `options` are those of subprocess.run."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.run(command, text=True, check=False, **(streams | options))


def loaded_at_exit(modules: tuple[str, ...], stream: str) -> str:
    """Return code that runs a command line, and prints at its end which of the modules it loaded.

    `stream` is `stdout` or `stderr`.
    """
    return f"""
import atexit, sys
def loaded():
    print([name for name in {modules} if name in sys.modules], file=sys.{stream})
atexit.register(loaded)
{CODE}"""
