"""Messages, frames, the handshake, and the serialised form of user values."""
