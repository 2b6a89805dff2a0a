"""Scale, in simulation: clusters of the real roles, of 10 to 1,000 nodes, in virtual time.

``python -m bench.scale`` runs the experiments (a file each); ``docs/scale.md`` shows their plots
and says what they do not show.
"""
