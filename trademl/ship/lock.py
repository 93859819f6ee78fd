"""Who may write to a store: the run that holds its lock, and the processes which that run started.

    <models_dir>/.lock          held by the run (filelock; the system frees it when its holder dies)
    <models_dir>/.lock.holder   a random token that names the run

The run puts its token into the environment, where its children (a job's kernel) find it. Whoever finds a token there writes
only while it is the one beside the lock and the lock is held: a kernel that outlived its killed run stores nothing. Whoever
finds none (a notebook by hand) takes the lock for the time of its write.

Two steps remain without a lock of their own: a run may die between the last look and the rename, or a new one may have taken
the lock and not yet written its token. Both take microseconds, and revisions never change: such a write harms no other one.
"""

import contextlib
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trademl.errors import LockedError, MissingExtraError, RevisionError
from trademl.files import digest

PATIENCE_S = 0.2  # a process that only looks whether the lock is held has it for a moment
NO_LOCKS = "no-locks"  # beside the token where the file system's locks hold nobody off: there nothing can be verified


@dataclass(frozen=True)
class StoreLock:
    """The lock of one store. Construction touches nothing."""

    models_dir: Path

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Take the lock, for this process and those that it starts. Raises LockedError at once when another run holds it."""
        lock, busy = self._file_lock()
        try:
            self.models_dir.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=PATIENCE_S, poll_interval=0.02)
        except busy:
            raise LockedError(f"{lock.lock_file}: another run holds the lock of this store; wait for it, or choose --models-dir") from None
        except OSError as refusal:
            raise self._unwritable(refusal) from refusal
        inherited = os.environ.get(self.variable)
        try:
            os.environ[self.variable] = self._name_holder()
            yield
        finally:
            os.environ.pop(self.variable, None)
            if inherited is not None:
                os.environ[self.variable] = inherited
            with contextlib.suppress(OSError):
                self.holder.unlink(missing_ok=True)
            lock.release()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """A block that may write: under the lock of the run that this process belongs to, else under one of its own."""
        if self.variable in os.environ:
            self.check()
            yield
        else:
            with self.held():
                yield

    def check(self) -> None:
        """Raises LockedError unless the run that this process belongs to still holds the lock."""
        is_held = self._is_held()  # first: a lock that another run took since then comes with another token
        try:
            token, *remarks = self.holder.read_text("ascii").split() or [""]
        except (OSError, ValueError):
            token, remarks = "", []
        if token != os.environ.get(self.variable) or not (is_held or NO_LOCKS in remarks):
            raise LockedError(
                f"{self.models_dir}: the run that started this process has ended, and its lock with it; "
                "nothing was stored; start the command again"
            )

    @property
    def holder(self) -> Path:
        """The file with the token."""
        return self.models_dir / ".lock.holder"

    @property
    def variable(self) -> str:
        """The environment variable that carries the token of this store. Not TRADEML_…: those are settings."""
        return f"STORE_LOCK_{digest(str(self.models_dir.resolve()).encode())[:16].upper()}"

    def _name_holder(self) -> str:
        token = uuid.uuid4().hex
        try:
            self.holder.write_text(token if self._is_held() else f"{token} {NO_LOCKS}", "ascii")
        except OSError as refusal:
            raise self._unwritable(refusal) from refusal
        return token

    def _is_held(self) -> bool:
        lock, busy = self._file_lock()
        try:
            lock.acquire(timeout=0)
        except busy:
            return True
        except OSError as refusal:
            raise self._unwritable(refusal) from refusal
        lock.release()
        return False

    def _file_lock(self):
        """The lock, not yet taken, and the exception of one that is busy."""
        try:
            import filelock
        except ImportError:
            raise MissingExtraError("writing to a store needs the package filelock; pip install 'trademl[lab]'") from None
        return filelock.FileLock(self.models_dir / ".lock"), filelock.Timeout

    def _unwritable(self, refusal: OSError) -> RevisionError:
        return RevisionError(f"{self.models_dir}: cannot be written ({refusal}); choose another folder with --models-dir")
