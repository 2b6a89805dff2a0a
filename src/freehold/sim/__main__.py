"""``python -m freehold.sim``: run seeds, replay one, or hunt the planted bugs."""

from __future__ import annotations

import sys

import click

from freehold.sim.campaign import campaign, report
from freehold.sim.cluster import Outcome, run_case
from freehold.sim.generate import NAMES, make_case
from freehold.sim.hunt import hunt_all, summary
from freehold.sim.mutants import MUTANTS
from freehold.sim.showing import show

REPORTS = 3  # failing seeds shown in full


@click.command()
@click.option("--seeds", default=100, show_default=True, help="How many seeds to run.")
@click.option("--start", default=0, show_default=True, help="The first of them.")
@click.option("--jobs", default=1, show_default=True, help="Processes to run them in.")
@click.option("--profile", default="", type=click.Choice(["", *NAMES]), help="One family only.")
@click.option("--seed", type=int, default=None, help="Run this one seed.")
@click.option("--trace", is_flag=True, help="With --seed: show its program and every step.")
@click.option("--mutants", is_flag=True, help="Plant bugs, one at a time, and find them.")
def main(
    seeds: int, start: int, jobs: int, profile: str, seed: int | None, trace: bool, mutants: bool
) -> None:
    """Whole clusters in one thread, on virtual time, from seeds."""
    if mutants:
        sys.exit(hunt_mutants(start, jobs))
    if seed is not None:
        sys.exit(replay(seed, profile, trace))
    shown = 0

    def tell(outcome: Outcome) -> None:
        nonlocal shown
        if outcome.promise:
            shown += 1
            if shown <= REPORTS:
                click.echo(report(outcome) + "\n")

    tally = campaign(range(start, start + seeds), profile, jobs, tell)
    for line in tally.lines():
        click.echo(line)
    for number, name, promise in tally.failed[:50]:
        click.echo(f"  --seed {number} --profile {name}: {promise}")
    for number, name in tally.differ:
        click.echo(f"  --seed {number} --profile {name}: another run in another interpreter")
    sys.exit(not tally.good)


def replay(seed: int, profile: str, trace: bool) -> int:
    """Run one seed. Returns the exit status."""
    case = make_case(seed, profile)
    outcome = run_case(case, trace)
    if trace:
        for number, program in enumerate(case.programs):
            click.echo(f"driver d{number} on node n{case.homes[number]}\n{show(program)}")
        click.echo("\n".join([*map(str, case.faults), *outcome.story]))
    if outcome.promise and not trace:
        click.echo(report(outcome))
    verdict = f"{outcome.promise}: {outcome.detail}" if outcome.promise else "every promise held"
    click.echo(f"seed {seed}, profile {case.profile}, digest {outcome.digest}: {verdict}")
    return int(bool(outcome.promise))


def hunt_mutants(start: int, jobs: int) -> int:
    """Find every planted bug. Returns the exit status."""
    found = []
    for one in hunt_all(MUTANTS, start, jobs):
        found.append(one)
        click.echo(str(one))
    click.echo(summary(found))
    return int(not all(one.seeds for one in found))


if __name__ == "__main__":
    main()
