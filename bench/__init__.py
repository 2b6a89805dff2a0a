"""Benchmarks: Freehold, its peers and the bare floor, measured in alternation in one run.

`python -m bench` is the only door. `figures/` holds one file per figure; a figure is a list of
metrics and, for each engine, a program that yields `(metric, value)` pairs. The same source runs on
Freehold and on Ray: the program is handed the engine's name and imports it. See `README.md` for how
to read the numbers.
"""
