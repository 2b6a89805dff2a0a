"""``python -m bench.scale``: measure, keep the figures as JSON, and draw them.

Each experiment takes a number of nodes and returns what was found; ``--keep`` is the folder of the
JSON files and plots. With ``--nodes ""`` nothing is measured, and what is kept is drawn again.
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from bench.scale import drawing, plots

#: What is measured, and the sizes that are kept: some minutes of a processor in all.
EXPERIMENTS: Final = {
    "messages": (10, 30, 100),
    "scheduling": (10, 30),
    "recovery": (10, 30, 100),
    "broadcast": (10, 30, 100, 300, 1000),
    "heartbeats": (10, 30, 100),
}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    parser.add_argument("--nodes", help="how many, as 10,30,100; by default what suits each")
    parser.add_argument("--what", default=",".join((*EXPERIMENTS, "predict")))
    parser.add_argument("--keep", type=Path, default=Path("docs/scale"))
    options = parser.parse_args()
    options.keep.mkdir(parents=True, exist_ok=True)
    for what in options.what.split(","):
        if what not in (*EXPERIMENTS, "predict"):
            parser.error(f"{what!r} is none of {', '.join((*EXPERIMENTS, 'predict'))}")
        if what == "predict":
            found = importlib.import_module("bench.scale.predict").measure()
            write(options.keep / "predict.json", found)
            say(json.dumps(found, indent=1))
            continue
        if options.nodes is None:
            counts: Iterable[int] = EXPERIMENTS[what]
        else:
            counts = [int(count) for count in options.nodes.split(",") if count]
        measure(what, counts, options.keep)
        draw(what, options.keep)


def measure(what: str, counts: Iterable[int], folder: Path) -> None:
    """Measure each size, and keep it at once: what was measured before stays, but for this size."""
    experiment = importlib.import_module(f"bench.scale.{what}")
    for nodes in counts:
        begun = time.process_time()
        found = experiment.measure(nodes)
        kept = read(folder / f"{what}.json")
        kept[str(nodes)] = found
        write(folder / f"{what}.json", kept)
        say(f"{what}, {nodes} nodes ({time.process_time() - begun:.0f} s): {json.dumps(found)}")


def draw(what: str, folder: Path) -> None:
    """The plots of one experiment, with what was measured before a change if that is kept too."""
    rows = read(folder / f"{what}.json")
    before = read(folder / f"{what}-before.json")
    for name, (title, y_name, series, linear) in plots.PLOTS[what](rows, before).items():
        if any(series.values()):
            picture = drawing.lines(title, y_name, series, linear=linear)
            (folder / f"{name}.svg").write_text(picture)


def read(path: Path) -> dict[str, Any]:
    """What is kept, by number of nodes."""
    kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return kept


def write(path: Path, found: dict[str, Any]) -> None:
    """Keep it, the smallest cluster first."""
    keys = sorted(found, key=lambda key: (int(key) if key.isdigit() else 0, key))
    path.write_text(json.dumps({key: found[key] for key in keys}, indent=1) + "\n")


def say(line: str) -> None:
    """One line for whoever waits."""
    print(line, flush=True)


if __name__ == "__main__":
    main()
