"""The ``freehold`` command: a table of subcommands, each imported when it is asked for.

``freehold --help`` must be quick, so it reads this table and imports none of the modules in it: a
cluster's runtime with numpy takes ten times as long as click alone.
"""

from __future__ import annotations

from importlib import import_module

import click

#: Name of a subcommand: (module, its attribute there, what it does).
COMMANDS = {
    "start": ("cluster", "start", "Start a cluster on this machine, or a node that joins one."),
    "stop": ("cluster", "stop", "Stop the nodes and heads on this machine."),
    "status": ("cluster", "status", "Show nodes, what they hold, and jobs."),
    "drain": ("drain", "drain", "Empty a node and have it leave, with nothing lost."),
    "explain": ("explain", "explain", "Say what a task or value waits for."),
    "sort": ("sort", "sort", "Sort 100-byte records: make them, sort them, check the result."),
}


class Lazy(click.Group):
    """A group that knows its commands by name and imports them late."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command itself. None if there is no such name."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(f"freehold.cli.{module}"), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in ``--help``, from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, words) for name, (_, _, words) in COMMANDS.items()])


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"freehold {version('freehold')}")
        ctx.exit()


@click.command(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
def main() -> None:
    """Freehold: distributed execution for Python."""
