"""Commands whose help shows their options in groups."""

from typing import Any

import click


class GroupedOption(click.Option):
    """An option with the heading that it stands under."""

    def __init__(self, *arguments: Any, group: str, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.group = group


class GroupedCommand(click.Command):
    """A command whose help lists its grouped options first, in the order of their groups, and then
    all others.
    """

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, each group under its heading."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                groups.setdefault(getattr(parameter, "group", "Other options"), []).append(record)
        others = groups.pop("Other options", [])
        for heading, records in [*groups.items(), ("Other options", others)]:
            with formatter.section(heading):
                formatter.write_dl(records)
