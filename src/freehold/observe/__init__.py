"""Questions about a running cluster and their answers."""
