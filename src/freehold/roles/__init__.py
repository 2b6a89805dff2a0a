"""Which machines make up an owner, an executor, a node and the head."""
