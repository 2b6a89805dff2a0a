"""``freehold explain ID``: what a task or value waits for, as ``fh.explain`` tells it to its owner.

The command is no process of the cluster and owns nothing, so it finds whose the id is by asking
all of them (``observe.explain``). It takes the id as messages print it, its first eight digits in
brackets, or more or all of them where that is not enough.
"""

from __future__ import annotations

import re
import sys
from typing import Final

import click

from freehold.cli.cluster import chosen
from freehold.observe import explain as observe
from freehold.observe.cluster import UNREACHABLE

#: Fewer digits than this say nothing: 1 in 65,536 ids begins with four given ones.
DIGITS_MIN: Final = 4
#: An object's id in full.
DIGITS_MAX: Final = 40


@click.command()
@click.argument("id", metavar="ID")
@click.option("--address", metavar="HOST:PORT", help="[default: every cluster with a node here]")
@click.option("--token-file", metavar="FILE", help="The cluster's token; - reads standard input.")
def explain(id: str, address: str | None, token_file: str | None) -> None:  # noqa: A002
    """Say what a task or value waits for, through every process that it depends on.

    ID is the one in messages, as in f() [0a1b2c3d], or ref.hex(): its first digits are enough.
    For a cluster with no node here, the token is needed: --token-file or $FREEHOLD_TOKEN.
    """
    digits = check(id)
    matches: list[observe.Match] = []
    asked = silent = 0
    failed = []
    for head, token in chosen(address, token_file):
        try:
            answer = observe.find(head.host, head.port, token, digits)
        except UNREACHABLE as error:
            failed.append(f"Error: {error}")
            continue
        matches += answer.matches
        asked += answer.asked
        silent += answer.silent
    for text in failed:
        click.echo(text, err=True)
    if len(matches) == 1 and not failed:
        click.echo(f"{matches[0].id}, of {matches[0].owner}:")
        for line in matches[0].lines:
            click.echo(f"  {line}")
        return
    if matches:
        several(digits, matches)
    elif not failed:
        unknown(digits, asked, silent)
    sys.exit(1)


def check(text: str) -> str:
    """The digits of an id, as people copy it: with brackets or as ObjectRef(...) too."""
    copied = re.fullmatch(r"\[(.*)\]|ObjectRef\((.*)\)", text)
    digits = (copied[1] or copied[2] or "") if copied else text
    if not re.fullmatch("[0-9a-fA-F]+", digits):
        raise click.ClickException(
            f"{text!r} is not an id: ids are hex digits, as in f() [0a1b2c3d]"
        )
    if not DIGITS_MIN <= len(digits) <= DIGITS_MAX:
        raise click.ClickException(
            f"{text!r} has {len(digits)} digits: give {DIGITS_MIN} to {DIGITS_MAX}, as many as are "
            "in the message or in ref.hex()"
        )
    return digits.lower()


def several(digits: str, matches: list[observe.Match]) -> None:
    """More than one thing has such an id."""
    click.echo(f"Error: {len(matches)} ids begin with {digits}: give more digits", err=True)
    for match in matches:
        click.echo(f"  {match.id}, of {match.owner}: {match.lines[0]}", err=True)


def unknown(digits: str, asked: int, silent: int) -> None:
    """Nothing has such an id."""
    if not asked:
        told = "no program runs there"
    elif silent:
        told = f"{silent} of the {asked} processes there did not answer"
    else:
        told = f"none of the {asked} processes there has it: it may have been freed"
    click.echo(f"Error: no task or value with an id that begins with {digits}: {told}", err=True)
