"""Real nodes that spill to an object store: an S3 server on the loopback."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import freehold as fh
import s3_server

MIB = 1 << 20
URL = "s3://bucket/spilled"


@pytest.fixture(scope="module")
def bucket() -> Iterator[s3_server.Bucket]:
    with s3_server.serving() as client:
        yield s3_server.Bucket(client, "bucket")


def begin(*folders: str, **options: Any) -> None:
    """A node of its own with a store of 64 MiB."""
    fh.init(
        num_cpus=1,
        object_store_memory=64 * MIB,
        spill_folders=folders,
        log_to_driver=False,
        **options,
    )


def eventually(condition: Callable[[], bool]) -> bool:
    """Whether it becomes true in good time."""
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


@fh.remote
def last(value: Any) -> int:
    return int(value[-1])


def test_values_go_to_a_bucket_and_back(bucket: s3_server.Bucket) -> None:
    """Goal: what does not fit in memory is in the bucket, in few objects, and comes back right, to
    the driver and to a task; objects go with their values, and the rest with the node.

    Method: 120 MiB in values of 4 MiB through a store of 64."""
    begin(URL)
    try:
        refs = [fh.put(np.full(MIB // 2, number)) for number in range(30)]
        assert 1 <= len(bucket.objects()) <= 3
        assert all(key.startswith("spilled/freehold-spill-s-") for key in bucket.objects())
        assert [int(fh.get(ref)[-1]) for ref in refs] == list(range(30))
        assert fh.get([last.remote(ref) for ref in refs[:10]]) == list(range(10))
        refs.clear()
        # (what was dropped is settled in the next call)
        assert eventually(lambda: bool(fh.nodes()) and bucket.objects() == [])
        kept = [fh.put(np.full(MIB // 2, number)) for number in range(30)]
        assert bucket.objects()
        del kept
    finally:
        fh.shutdown()
    assert (bucket.objects(), bucket.uploads()) == ([], [])


def test_quota_of_a_bucket(bucket: s3_server.Bucket) -> None:
    """Goal: the quota counts objects too, and is told with the place."""
    begin(URL, spill_quota=40 * MIB)
    try:
        refs: list[Any] = []
        with pytest.raises(fh.errors.OutOfDiskError, match=r"spill quota.* in use in s3://bucket/"):
            refs.extend(fh.put(np.full(MIB, number)) for number in range(20))
    finally:
        fh.shutdown()
    assert bucket.objects() == []


def test_a_killed_node_leaves_nothing(bucket: s3_server.Bucket) -> None:
    """Goal: the zygote removes what its node had spilled. Method: SIGKILL to the daemon."""
    begin(URL)
    try:
        refs = [fh.put(np.full(MIB // 2, number)) for number in range(30)]
        assert bucket.objects()
        os.kill(fh.nodes()[0]["Pid"], signal.SIGKILL)
        assert eventually(lambda: bucket.objects() == [])
        del refs
    finally:
        fh.shutdown()


def test_no_such_bucket(bucket: s3_server.Bucket) -> None:
    """Goal: a node that could not spill says so when it starts, with the place and the remedy."""
    with pytest.raises(
        fh.errors.ClusterUnreachableError, match=r"cannot spill to s3://nobody/x: .*create the buck"
    ):
        begin("s3://nobody/x")
    with pytest.raises(ValueError, match="file://here/x names a machine"):
        begin("file://here/x")
