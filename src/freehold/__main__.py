"""``python -m freehold``: the command line, for where the script is not on the path."""

from freehold.cli.main import main

main(prog_name="python -m freehold")
