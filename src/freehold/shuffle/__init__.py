"""Exoshuffle: shuffles, and the jobs built on them, as libraries on the public API.

Where to find what: ``simple`` is the strategy, ``sort`` the external sort, ``jobs`` generation
and checking; ``records``, ``files``, ``gensort`` and ``validate`` are what they compute with, and
know nothing of tasks. Nothing is imported here, so that a worker loads only what its task needs.
"""
