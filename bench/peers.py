"""The peers' own environment, `bench/.env`: made once with venv and pip, then left alone.

It is kept apart so that a peer's dependencies can never be mistaken for ours. A `pins` file inside
is written last and says what was installed; an environment without it, or with other pins, is made
anew.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

HOME = Path(__file__).resolve().parent / ".env"
PINS = (
    *("ray==2.60.0", "distributed==2026.8.0", "dask==2026.8.0", "numpy", "psutil"),
    *("msgspec", "cloudpickle", "click", "rich"),  # for our shuffle on Ray
    "matplotlib",  # for the page's plots
    *("duckdb==2.0.1", "polars==2.1.0", "pyspark==4.3.0"),  # these, and the next, for the sort
    *("pandas==3.1.1", "pyarrow==26.0.1", "fsspec"),  # ray.data and dask.dataframe need them
)


def ready() -> bool:
    """Whether the environment is there, as `PINS` say."""
    stamp = HOME / "pins"
    return stamp.exists() and stamp.read_text() == "\n".join(PINS)


def interpreter() -> str:
    """The peers' interpreter, after making its environment if it is absent (about a minute).

    Raises:
        RuntimeError: The environment could not be made; carries the installer's last lines.
    """
    python = HOME / "bin" / "python"
    if not ready():
        print(f"making {HOME.name} with {', '.join(PINS)}", file=sys.stderr)
        shutil.rmtree(HOME, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(HOME)])
        _run([str(python), "-m", "pip", "install", "-q", *PINS])
        (HOME / "pins").write_text("\n".join(PINS))
    return str(python)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        tail = "\n".join(done.stderr.splitlines()[-10:])
        raise RuntimeError(
            f"making the peers' environment failed in {' '.join(command[1:])}:\n{tail}\n"
            "Use --engines freehold,std,floor to measure without the peers."
        )
