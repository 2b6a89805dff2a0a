"""The deterministic simulator: whole clusters of the same roles that the daemons run, in one
thread, on virtual time.

``world`` clock, chance and digest; ``network`` links; ``process`` the shells around the roles;
``user`` the thread that runs user code; ``programs`` user code as data; ``generate`` random
clusters, programs and faults from one seed; ``oracle`` what a program should yield; ``checkers``
the promises; ``cluster`` one run; ``shrink`` the smallest case that still fails; ``mutants``
planted bugs. See docs/simulator.md."""
