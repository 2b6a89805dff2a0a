"""Spill files in an object store: uploads in parts, stores that fail, and what may remain."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import s3_server
from freehold.errors import OutOfDiskError
from freehold.store import spill, spill_url
from freehold.store.spill import SpillReadError, SpillStore
from spilled import batch_of, read

URL = "s3://bucket/some/where"


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with s3_server.serving() as client:
        yield client


@pytest.fixture
def bucket(client: Any) -> Iterator[s3_server.Bucket]:
    bucket = s3_server.Bucket(client, "bucket")
    yield bucket
    bucket.remove()


def test_a_large_file_is_uploaded_in_parts(bucket: s3_server.Bucket) -> None:
    """Goal: a file is one object at any size, called by the node, and no upload stays open.

    Method: 40 MB, of which one value is longer than a part; each value compared."""
    batch = batch_of(100, spill_url.PART + 1, 100, 23 << 20)
    with closing(SpillStore([URL], name="session-node")) as store:
        slots = store.write(batch)
        assert bucket.objects() == ["some/where/freehold-spill-session-node/1"]
        assert bucket.uploads() == []
        assert [read(store, slot) for slot in slots] == [bytes(view) for _, view in batch]


@pytest.mark.parametrize("size", [0, 1, 99, 100, 399, 400, 1000])
def test_ranges_of_an_object(
    bucket: s3_server.Bucket, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Goal: ranges make the whole, whatever they are of. Method: short ones, four at a time."""
    monkeypatch.setattr(spill_url, "RANGE", 100)
    batch = batch_of(50, size, 50)
    with closing(SpillStore([URL])) as store:
        slot = store.write(batch)[1]
        assert read(store, slot) == bytes(batch[1][1])
        assert b"".join(map(bytes, store.parts(slot, 70))) == bytes(batch[1][1])


def test_a_bucket_that_fails_later_is_left_out(
    client: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Goal: as with disks, others take over with one warning; alone, it is a clear error.

    Method: a bucket is deleted after the start, once beside a folder and once alone."""
    short_lived = s3_server.Bucket(client, "short-lived")
    both = SpillStore(["s3://short-lived", tmp_path], name="both")
    alone = SpillStore(["s3://short-lived"], name="alone")
    short_lived.remove()
    with closing(both), closing(alone):
        slots = [both.write(batch_of(10))[0] for _ in range(4)]
        assert [len(read(both, slot)) for slot in slots] == [10] * 4
        (warning,) = [record for record in caplog.records if record.name == "freehold"]
        assert (
            "cannot spill to s3://short-lived/freehold-spill-both: the bucket"
            in warning.getMessage()
        )
        with pytest.raises(OutOfDiskError, match=r"spill-alone: the bucket .* does not exist"):
            alone.write(batch_of(10))
        assert (alone.files, alone.bytes_on_disk) == (0, 0)
    assert len([r for r in caplog.records if r.name == "freehold"]) == 2, (
        "one of each store, and none when they end"
    )


def test_an_object_that_is_gone(bucket: s3_server.Bucket) -> None:
    """Goal: what somebody else has deleted is a lost copy, not a crash."""
    with closing(SpillStore([URL])) as store:
        slots = store.write(batch_of(10, 20))
        client = bucket.client
        client.delete_object(Bucket=bucket.name, Key=bucket.objects()[0])
        with pytest.raises(SpillReadError, match="does not exist"):
            read(store, slots[0])
        for slot in slots:
            store.release(slot)


def test_a_write_that_fails_leaves_nothing(bucket: s3_server.Bucket) -> None:
    """Goal: whole or not there. Method: the source fails when one part is away."""
    place = spill_url.Bucket(URL, "name")

    def pieces() -> Iterator[memoryview]:
        yield memoryview(bytes(2 * spill_url.PART))
        assert bucket.uploads() == ["some/where/freehold-spill-name/1"]
        raise OSError("no luck")

    with pytest.raises(OSError, match="no luck"):
        place.write(1, pieces())
    assert (bucket.objects(), bucket.uploads()) == ([], [])
    place.close()


def test_close_during_an_upload(bucket: s3_server.Bucket) -> None:
    """Goal: a write overtaken by close gives up and leaves nothing. Method: close from another
    thread when one part is away; it waits for the write."""
    place = spill_url.Bucket(URL, "name")
    closer = threading.Thread(target=place.close)

    def pieces() -> Iterator[memoryview]:
        yield memoryview(bytes(2 * spill_url.PART))
        closer.start()
        while not place._closed:
            closer.join(0.01)
        yield memoryview(bytes(10))

    with pytest.raises(OSError, match="was closed"):
        place.write(1, pieces())
    closer.join()
    assert (bucket.objects(), bucket.uploads()) == ([], [])


def test_what_a_killed_node_left(bucket: s3_server.Bucket) -> None:
    """Goal: what bears a node's name can be removed for it, and nothing else goes. Method: a store
    that is not closed; one of another name, longer by a letter, stays."""
    SpillStore([URL], name="a").write(batch_of(10))
    with closing(SpillStore([URL], name="ab")) as living:
        (slot,) = living.write(batch_of(10))
        spill.sweep(URL, "a")
        assert bucket.objects() == ["some/where/freehold-spill-ab/1"]
        assert len(read(living, slot)) == 10
    spill.sweep(URL, "a")  # nothing there is no error
    assert bucket.objects() == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://nobody/x", "cannot spill to s3://nobody/x: the bucket .* create the bucket"),
        ("nonsense://b/x", "cannot spill to nonsense://b/x: ValueError: Protocol not known"),
    ],
)
def test_a_url_that_cannot_be_used_is_told(
    client: Any, tmp_path: Path, url: str, message: str
) -> None:
    """Goal: a wrong URL is told at once, also beside a folder that works, of which nothing stays.
    Method: no such bucket; a scheme that nobody knows."""
    with pytest.raises(OSError, match=message):
        SpillStore([tmp_path, url])
    assert list(tmp_path.iterdir()) == []


def test_without_credentials_or_extra(
    bucket: s3_server.Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Goal: the error says what is missing. Method: no credentials anywhere; then an installation
    without the extra."""
    for name in s3_server.CREDENTIALS:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    s3_server.disconnect()  # or the connections with the credentials would be used again
    with pytest.raises(OSError, match=r"s3://bucket/some/where: access was denied .*credentials"):
        SpillStore([URL])
    s3_server.disconnect()
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(OSError, match=r"where: .*; URLs need .* pip install 'freehold\[storage\]'"):
        SpillStore([URL])


def test_who_does_not_answer_is_not_waited_for() -> None:
    """Goal: a store that hangs keeps no node from starting or stopping."""
    answer = threading.Event()
    with pytest.raises(OSError, match=r"no answer within 0\.05 s"):
        spill_url._within(0.05, answer.wait)
    answer.set()


def test_file_urls(tmp_path: Path) -> None:
    """Goal: a file: URL is that folder. Method: a name with a space; a machine, refused."""
    folder = tmp_path / "with space"
    with closing(SpillStore([folder.as_uri()])) as store:
        (slot,) = store.write(batch_of(10))
        assert len(read(store, slot)) == 10
        assert len(list(folder.glob("*/1"))) == 1
    with pytest.raises(ValueError, match="names a machine: write file:///scratch/x"):
        SpillStore(["file://scratch/x"])
