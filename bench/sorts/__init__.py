"""The sort in each peer's own idiom: ``python -m bench.sorts.NAME IN OUT MEMORY`` for one engine.

IN is a folder of files of 100-byte records, of which the first ten bytes are the key; OUT exists
and is empty, and its files in order of name are the result. MEMORY is what the engine may use for
data, in bytes; 0 leaves it to the engine. Each program uses two processors.

No peer reads such files itself, so all of them get them by the same few lines (``records.py``): a
key as two integers, which every engine sorts faster than ten bytes, and the record as 100 bytes.
"""
