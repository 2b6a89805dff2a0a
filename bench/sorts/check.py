"""What a folder of record files holds: ``python -m bench.sorts.check FOLDER`` prints it as JSON.

Every record is read: count, sum of the CRC-32 of all records, records below the one before them.
Two folders with the same count and sum hold the same records.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from freehold.shuffle import files, validate


def main(folder: Path) -> None:
    """Read with two processes."""
    pieces = [
        (path, extent.start, extent.count)
        for path in files.record_files(folder)
        for piece in files.slices([path], 320_000)
        for extent in piece.extents
    ]
    with ProcessPoolExecutor(2) as pool:
        found = validate.join(pool.map(validate.summarise_file, *zip(*pieces, strict=True)))
    words = {"records": found.records, "sum": found.checksum, "unordered": found.unordered}
    print(json.dumps(words))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
