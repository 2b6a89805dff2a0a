"""The data plane's storage: the shared-memory arena, its allocator, bulk copies, spill files."""
