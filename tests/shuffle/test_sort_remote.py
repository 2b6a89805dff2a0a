"""The sort from and to an object store: an S3 server on the loopback, real nodes and workers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import freehold as fh
from freehold.shuffle import files, gensort, jobs, places, records, sort
from freehold.shuffle.places import RecordFileError, Remote

pytestmark = pytest.mark.processes

IN, OUT = "s3://bucket/sort/in", "s3://bucket/sort/out"


@pytest.fixture(scope="module")
def store() -> Iterator[Any]:
    """An S3 server with a bucket, found and trusted by way of the environment; its file system."""
    moto = pytest.importorskip("moto.server")
    fsspec = pytest.importorskip("fsspec")
    pytest.importorskip("s3fs")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as surroundings:
        surroundings.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            surroundings.setenv(name, "testing")
        surroundings.setenv("AWS_DEFAULT_REGION", "us-east-1")
        system = fsspec.filesystem("s3", skip_instance_cache=True)
        system.mkdir("bucket")
        yield system
    disconnect(system)
    end_loop(fsspec)
    server.stop()


def disconnect(system: Any) -> None:
    """Close the connections of a file system and of all that are kept beside it."""
    for one in [system, *type(system)._cache.values()]:
        if one._s3 is not None:
            one.close_session(one.loop, one._s3)
    type(system).clear_instance_cache()


def end_loop(fsspec: Any) -> None:
    """End the thread and the event loop that fsspec keeps for the life of a process."""
    thread, loop = fsspec.asyn.iothread[0], fsspec.asyn.loop[0]
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
    fsspec.asyn.reset_lock()


@pytest.fixture(scope="module")
def local(store: Any) -> Iterator[None]:
    """Two CPUs, started when the environment says where the store is."""
    fh.init(num_cpus=2, object_store_memory=64 << 20)
    yield
    fh.shutdown()


def uploads(store: Any) -> list[Any]:
    """Uploads that nobody has completed."""
    return list(store.call_s3("list_multipart_uploads", Bucket="bucket").get("Uploads", ()))


def generated_in_order(count: int) -> bytes:
    block = gensort.records(0, count)
    return records.take(block, records.sort_order(block)).tobytes()


def read_parts(store: Any, url: str) -> bytes:
    return b"".join(store.cat_file(path.url) for path in places.place(url).entries())


@pytest.mark.parametrize("strategy", ["simple", "push_pipelined"])
def test_sort_from_and_to_a_bucket(store: Any, local: None, strategy: str) -> None:
    """Goal: the same bytes as from a folder. Method: 20 MB made in three objects, sorted with two
    partitions, which are uploads in parts; every byte compared, then checked by tasks; sorted again
    only when told to replace. No upload is left open.
    """
    source, target = f"{IN}-{strategy}", f"{OUT}-{strategy}/"
    jobs.generate(source, 200_000, 3)
    report = sort.sort(source, target, partitions=2, strategy=strategy)
    assert report.stages["reduce"].tasks.total() == 2
    assert [path.name for path in places.place(target).entries()] == [
        files.part_name(number, 2) for number in range(2)
    ]
    assert read_parts(store, target) == generated_in_order(200_000)
    verdict = jobs.check(target)
    assert verdict.summary.in_order
    assert verdict.summary.same_records(jobs.check(source).summary)
    with pytest.raises(RecordFileError, match="is not empty"):
        sort.sort(source, target)
    sort.sort(source, target, partitions=3, strategy=strategy, overwrite=True)
    assert read_parts(store, target) == generated_in_order(200_000)
    assert uploads(store) == []


def test_one_side_may_be_a_folder(store: Any, local: None, tmp_path: Path) -> None:
    """Goal: input and output need not be of one kind. Method: folder to bucket and back."""
    jobs.generate(tmp_path / "in", 20_000)
    sort.sort(tmp_path / "in", f"{OUT}-mixed")
    assert read_parts(store, f"{OUT}-mixed") == generated_in_order(20_000)
    sort.sort(f"{OUT}-mixed", tmp_path / "back")
    found = b"".join(path.read_bytes() for path in sorted((tmp_path / "back").iterdir()))
    assert found == generated_in_order(20_000)


def test_a_write_that_fails_leaves_nothing(store: Any) -> None:
    """Goal: whole or not there. Method: an upload of which one part is away when its source fails;
    an upload that was begun and forgotten, as by a killed process."""
    target = Remote("s3://bucket/broken/part-00000")

    def blocks() -> Iterator[Any]:
        yield np.zeros((200_000, 100), dtype=np.uint8)
        raise RuntimeError("no luck")

    with pytest.raises(RecordFileError, match="part-00000: RuntimeError: no luck"):
        files.write_whole(target, blocks())
    assert target.parent.entries() == []
    assert uploads(store) == []
    store.call_s3("create_multipart_upload", Bucket="bucket", Key="broken/part-00001")
    store.call_s3("create_multipart_upload", Bucket="bucket", Key="elsewhere/part-00001")
    files.remove_temporaries(target.parent)
    assert [upload["Key"] for upload in uploads(store)] == ["elsewhere/part-00001"]
    files.remove_temporaries(Remote("s3://bucket/elsewhere"))


def test_what_is_not_ours_is_not_replaced(store: Any) -> None:
    """Goal: nothing of the user's is deleted. Method: an object of another name in the output."""
    store.pipe_file("bucket/mine/thesis.txt", b"years of work")
    with pytest.raises(RecordFileError, match=r"thesis\.txt was not written by this job"):
        files.clear_for_output(Remote("s3://bucket/mine"), overwrite=True)
    assert store.cat_file("bucket/mine/thesis.txt") == b"years of work"


def test_bad_input_is_told(store: Any, local: None, tmp_path: Path) -> None:
    """Goal: each error names the place and the remedy. Method: no bucket, no objects, an object of
    a wrong length, output beside input."""
    with pytest.raises(RecordFileError, match="s3://nobody/in: the bucket or the object does not"):
        sort.sort("s3://nobody/in", tmp_path / "out")
    with pytest.raises(RecordFileError, match="s3://bucket/empty holds no objects"):
        sort.sort("s3://bucket/empty", tmp_path / "out")
    store.pipe_file("bucket/torn/part-00000", bytes(150))
    with pytest.raises(RecordFileError, match="part-00000 holds 150 bytes"):
        sort.sort("s3://bucket/torn", tmp_path / "out")
    jobs.generate("s3://bucket/same", 10)
    with pytest.raises(RecordFileError, match="lies in the output folder"):
        sort.sort("s3://bucket/same", "s3://bucket/same/")
    jobs.generate(tmp_path / "in", 10)
    with pytest.raises(RecordFileError, match="cannot read s3://nobody/out"):
        sort.sort(tmp_path / "in", "s3://nobody/out")


def test_without_credentials_or_extra(
    store: Any, local: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Goal: the error says what is missing. Method: a scheme that nobody knows, no
    credentials anywhere, an installation without the extra."""
    with pytest.raises(RecordFileError, match=r"nonsense://b/in: ValueError: Protocol not known"):
        sort.sort("nonsense://b/in", tmp_path / "out")
    asked = Remote("s3://bucket/in")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    disconnect(store)  # or the connections with the credentials would be used again
    with pytest.raises(RecordFileError, match=r"s3://bucket/in: access was denied .*credentials"):
        asked.entries()
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(RecordFileError, match=r"pip install 'freehold\[storage\]'"):
        asked.entries()
