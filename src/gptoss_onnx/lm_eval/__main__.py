"""`python -m gptoss_onnx.lm_eval`: the command `lm_eval`, which then knows the model
`gptoss-onnx`.

The harness finds models in a table of its own, without entry points: whoever adds one starts it.
"""

import sys

from gptoss_onnx.errors import GptOssError
from gptoss_onnx.extras import install_command


def main() -> None:
    """Register the model and hand over to the harness; errors of ours are one line and exit 2."""
    try:
        from lm_eval.__main__ import cli_evaluate

        import gptoss_onnx.lm_eval.model  # noqa: F401 - registers it
    except ModuleNotFoundError as error:
        _refuse(f"{error.name} is not installed: this command needs {install_command('lm-eval')}")
    try:
        cli_evaluate()
    except GptOssError as error:
        _refuse(str(error))


def _refuse(text: str) -> None:
    print(f"error: {text}", file=sys.stderr)  # noqa: T201 - a program
    raise SystemExit(2)


if __name__ == "__main__":
    main()
