"""The protocols as pure state machines: no socket, clock, thread or chance of their own."""
