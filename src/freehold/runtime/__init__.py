"""Thin shells that perform effects: reactor, transport, driver, worker, node daemon, head,
zygote.
"""
