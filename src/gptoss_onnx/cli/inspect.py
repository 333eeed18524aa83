"""`gptoss-onnx inspect`: say what a package holds and whether its files are still those it was made
with.
"""

from pathlib import Path

import click

from gptoss_onnx.cli.console import extra, print_json, say, verbose_option


@click.command(short_help="Describe a package and the state of its files.")
@click.argument("package", type=click.Path(path_type=Path))
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print the manifest and what was computed from it as JSON.",
)
@verbose_option
def inspect(package: Path, as_json: bool) -> None:
    """Describe PACKAGE: model, cache, graph, weights and their state, tokenizer. Loads no
    weights.
    """
    with extra("cpu"):
        from gptoss_onnx.inspect.findings import Findings
        from gptoss_onnx.inspect.summary import summarize

    findings = Findings.of(package)
    if as_json:
        print_json(findings.to_json())
    else:
        say(summarize(findings))
