"""An S3 server on the loopback, for tests of what goes to object stores.

The server is moto's, in a thread of this process; `serving` tells everything that is started
meanwhile, by the environment, where it is and to trust it. `Bucket` looks into it with another
client than the code under test has.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem

CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


class Bucket:
    """A bucket, as somebody else sees it."""

    def __init__(self, client: Any, name: str) -> None:
        self.client = client
        self.name = name
        client.create_bucket(Bucket=name)

    def objects(self) -> list[str]:
        """The keys of all objects, in order."""
        found = self.client.list_objects_v2(Bucket=self.name).get("Contents", ())
        return sorted(entry["Key"] for entry in found)

    def uploads(self) -> list[str]:
        """The keys of uploads that nobody has completed."""
        said = self.client.list_multipart_uploads(Bucket=self.name)
        return [upload["Key"] for upload in said.get("Uploads", ())]

    def read(self, key: str) -> bytes:
        """All of an object."""
        body: bytes = self.client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return body

    def write(self, key: str, data: bytes) -> None:
        """Put an object, or another in its place."""
        self.client.put_object(Bucket=self.name, Key=key, Body=data)

    def remove(self) -> None:
        """Delete everything in it, and the bucket."""
        for key in self.objects():
            self.client.delete_object(Bucket=self.name, Key=key)
        self.client.delete_bucket(Bucket=self.name)


@contextmanager
def serving() -> Iterator[Any]:
    """A server, found and trusted by way of the environment; yields a client of it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as surroundings:
        surroundings.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name in CREDENTIALS:
            surroundings.setenv(name, "testing")
        surroundings.setenv("AWS_DEFAULT_REGION", "us-east-1")
        client = boto3.client("s3")
        yield client
        client.close()
        disconnect()
    server.stop()


def disconnect() -> None:
    """Close the connections that the code under test has kept, and forget where they went."""
    kept = S3FileSystem._cache.values()
    for system in [one for one in kept if one._s3 is not None]:
        system.close_session(system.loop, system._s3)
    S3FileSystem.clear_instance_cache()
