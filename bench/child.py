"""The measuring process: runs one figure's program on one engine and writes what it yields.

Called by the harness as `python -m bench.child FIGURE ENGINE FILE [METRIC]...`. Each pair is
written and flushed as it comes, so that a crash or a kill late in a program does not take the
earlier values with it; words in place of a value say why there is none. Standard output is not
used, because engines print to it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TextIO

from bench import engines, figures
from bench.figure import choose


def main(figure_name: str, engine: str, path: str, *metrics: str) -> None:
    """Measure the figure, or of it those metrics alone; write its pairs, and last the versions.

    A line is JSON with `metric` and `value` or `error`, or with `versions`.
    """
    choose(metrics)
    figure = figures.find(figure_name)
    known = {metric.name for metric in figure.metrics}
    with Path(path).open("w", encoding="utf-8") as out:
        for metric, value in figure.samples(engine):
            if metric not in known:
                raise KeyError(
                    f"figure {figure_name} yields {metric!r}, which is not among its metrics"
                )
            _write(out, metric=metric, **{"error" if isinstance(value, str) else "value": value})
        _write(out, versions=engines.versions(engine))


def _write(out: TextIO, **record: object) -> None:
    out.write(json.dumps(record) + "\n")
    out.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
