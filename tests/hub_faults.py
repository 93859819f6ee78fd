"""Faults on demand: a process that is killed at a chosen step, and a way to the server that cuts, flips and delays."""

import contextlib
import json
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent

NURSERY = """
import json, os, signal, sys, time
sys.path[:0] = [{here!r}]
from pathlib import Path
from hub_rooms import NOW, at
from trademl import files
from trademl.ship.hub.objects import FolderObjects
from trademl.ship.hub.pull import pull

def kill_at(owner, name, count, before):
    real, calls = getattr(owner, name), iter(range(10_000))
    def wrapped(*args, **words):
        mine = next(calls) == count
        if mine and before:
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*args, **words)
        if mine:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    setattr(owner, name, wrapped)

OWNERS = {{"put": FolderObjects, "_finish": files, "sync_folder": files, "rename": Path, "replace": Path}}
print("ready", flush=True)
for line in sys.stdin:
    task = json.loads(line)
    child = os.fork()
    if not child:
        room = at(Path(task["folder"]))
        if task["step"] in OWNERS:
            kill_at(OWNERS[task["step"]], task["step"], task["count"], task["before"])
        try:
            if task["do"] == "push":
                room.hub.push(room.revision(task["number"]), now=NOW)
            elif task["do"] == "promote":
                room.hub.promote(room.revision(task["number"]).name, now=NOW)
            else:
                pull(room.seen_by_bot, room.bot, now=NOW)
        finally:
            os._exit(7)
    if task["step"] == "milliseconds":
        time.sleep(task["count"] / 1000)
        os.kill(child, signal.SIGKILL)  # it may have ended, and is not reaped yet
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Nursery:
    """One process that has imported everything, and forks a child for each deed; the child is killed at a step."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, "-c", NURSERY.format(here=str(HERE))], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout.readline() == "ready\n"

    def killed(self, room, do: str, number: int, step: str, count: int, *, before: bool = False) -> bool:
        """Whether a child was killed at the `count`-th call of `step` (or after so many milliseconds); False: it ended before."""
        task = {"folder": str(room.folder), "do": do, "number": number, "step": step, "count": count, "before": before}
        self.process.stdin.write(json.dumps(task) + "\n")
        self.process.stdin.flush()
        code = int(self.process.stdout.readline())
        assert code in (-signal.SIGKILL, 7)
        return code == -signal.SIGKILL

    def close(self):
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()


@dataclass
class Proxy:
    """A TCP proxy on loopback; `fault(direction, offset, data)` gives the bytes that go on, and None cuts the connection."""

    target: int
    fault: Callable[[str, int, bytes], bytes | None]
    cuts: int = 0
    _sockets: list = field(default_factory=list)

    def __enter__(self) -> "Proxy":
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._listener.close()
        for one in self._sockets:
            _close(one)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                return
            self._sockets += [near, far]
            for direction, source, sink in (("up", near, far), ("down", far, near)):
                threading.Thread(target=self._carry, args=(direction, source, sink), daemon=True).start()

    def _carry(self, direction, source, sink):
        offset = 0
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 14):
                passed = self.fault(direction, offset, data)
                offset += len(data)
                if passed is None:
                    self.cuts += 1
                    break
                sink.sendall(passed)
        _close(source)
        _close(sink)


def _close(one):
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()


class Storm:
    """Cuts, flips of one bit, and delays, each in `share` of the pieces; `count` says how many of each there were."""

    def __init__(self, seed: int, share: float):
        self.rng, self.share, self.count = random.Random(seed), share, Counter()

    def __call__(self, direction, offset, data):
        lot, share = self.rng.random(), self.share
        if lot < share:
            self.count["cut"] += 1
            return None
        if lot < 2 * share:
            self.count["flipped"] += 1
            at = self.rng.randrange(len(data))
            return data[:at] + bytes([data[at] ^ 1 << self.rng.randrange(8)]) + data[at + 1 :]
        if lot < 3 * share:
            self.count["delayed"] += 1
            time.sleep(self.rng.uniform(0, 0.05))
        return data


class Wire:
    """What a client puts on the wire while this stands: (method, key, bytes of the body), one for each request."""

    def __init__(self, objects):
        self.objects, self.sent = objects, []

    def __enter__(self) -> "Wire":
        self.objects.client.meta.events.register("before-send.s3", self._see)
        return self

    def __exit__(self, *_):
        self.objects.client.meta.events.unregister("before-send.s3", self._see)

    def _see(self, request, **rest):
        path = request.url.split("?")[0].partition(self.objects.prefix)[2]
        self.sent.append((request.method, path, int(request.headers.get("Content-Length", 0))))

    def count(self, method: str, part: str) -> Counter:
        """How often each key that holds `part` was asked for."""
        return Counter(key for verb, key, _ in self.sent if verb == method and part in key)


@dataclass
class Answers:
    """A server that gives the same bytes to whoever asks, then `then` piece by piece for as long as somebody listens."""

    first: bytes
    then: bytes = b""
    every_s: float = 0.0
    asked: int = 0

    def __enter__(self) -> "Answers":
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._listener.close()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                threading.Thread(target=self._answer, args=(near,), daemon=True).start()

    def _answer(self, near):
        with contextlib.suppress(OSError):
            near.recv(1 << 16)
            self.asked += 1
            near.sendall(self.first)
            while self.then:
                near.sendall(self.then)
                time.sleep(self.every_s)
        _close(near)
