"""The freehold command."""
