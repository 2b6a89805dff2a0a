"""``python -m freehold.shuffle``: each strategy with its lines of code, beside the paper's.

Lines are counted as the paper does: without blank lines, comments and docstrings. The shape, which
all strategies share, is counted once on its own. The paper's figures (Exoshuffle, table 1) are of
whole programs on the futures interface; those of the engines are of their shuffles.
"""

from __future__ import annotations

import ast
from importlib.util import find_spec
from pathlib import Path

import click

#: Strategy, its lines in the paper, the engine it was first built into, and its lines there.
PAPER = (
    ("simple", 215, "Spark", 2600),
    ("merge", 265, "Riffle", None),
    ("push", 256, "Magnet", 6700),
    ("push_pipelined", 256, "", None),
    ("cloudsort", None, "", None),
)


def lines(name: str) -> int:
    """Lines of code of the module ``freehold.shuffle.name``."""
    spec = find_spec(f"freehold.shuffle.{name}")
    assert spec is not None
    assert spec.origin is not None
    module = ast.parse(Path(spec.origin).read_text())
    told = {
        line
        for node in ast.walk(module)
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    used = {
        line
        for node in ast.walk(module)
        if isinstance(node, ast.expr | ast.stmt | ast.arg)
        for line in (node.lineno, node.end_lineno or node.lineno)
    }
    return len(used - told)


@click.command(help="The shuffle strategies and their lines of code, beside the paper's.")
def main() -> None:
    click.echo(f"{'strategy':16}{'lines':>6}{'paper':>8}   in an engine")
    for name, paper, engine, there in PAPER:
        elsewhere = f"{engine} {there or ''}".strip()
        click.echo(f"{name:16}{lines(name):6}{paper or '-':>8}   {elsewhere}".rstrip())
    click.echo(f"{'shape':16}{lines('shape'):6}{'':8}   shared by all of them")


if __name__ == "__main__":
    main()
