"""The record: files of JSON lines, one of facts per run, then one per measurement.

Each line carries its run's id. `results.jsonl` is appended to as measurements end, and is not kept
in the repository; `record.jsonl` is what the page shows, the newest run of each figure, so that one
figure can be measured again, anywhere, without the others.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.harness import Measurement


@dataclass(slots=True)
class Run:
    """One call of the command.

    Args:
        facts: Machine, source, command and date, from `machine.facts`.
        measured: What it has measured, in order.
    """

    facts: dict[str, str]
    measured: list[Measurement] = field(default_factory=list)

    def of(self, figure: str) -> list[Measurement]:
        """The measurements of one figure."""
        return [one for one in self.measured if one.figure == figure]


Runs = dict[str, Run]


def read(paths: Iterable[Path]) -> Runs:
    """All runs in the files that exist, oldest first; of a run in several files, the last."""
    runs: Runs = {}
    for path in paths:
        found: Runs = {}
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            record = json.loads(line)
            run = record.pop("run")
            if "facts" in record:
                found[run] = Run(record["facts"])
            else:
                found[run].measured.append(Measurement(**record))
        runs |= found
    return dict(sorted(runs.items(), key=lambda item: item[1].facts["date"]))


def newest(runs: Runs, figure: str) -> str | None:
    """Id of the newest run that has `figure`."""
    return next((run for run in reversed(runs) if runs[run].of(figure)), None)


def write(path: Path, shown: dict[str, str], runs: Runs) -> None:
    """Keep in `path` only the figures of `shown`, each from the run that it names."""
    with path.open("w", encoding="utf-8") as out:
        for run in runs:
            figures = [figure for figure, chosen in shown.items() if chosen == run]
            if figures:
                out.write(line(run, facts=runs[run].facts))
                for figure in figures:
                    for one in runs[run].of(figure):
                        out.write(line(run, **asdict(one)))


def line(run: str, **record: object) -> str:
    """One line of the file."""
    return json.dumps({"run": run} | record) + "\n"
