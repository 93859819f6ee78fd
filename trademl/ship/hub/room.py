"""What lies on the hub of one line, and what of it may be believed: where it is, and the reading of it.

    trademl/v1/<line>/blobs/sha256/ab/<64 hex>           immutable
    trademl/v1/<line>/revisions/<rev>/manifest.json      immutable, then manifest.sig: a revision is there once both are
    trademl/v1/<line>/channels/…                         `trademl.ship.hub.pointer`

Nothing is believed before its hash and its signature are right.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from trademl.errors import HubError, RevisionError, UsageError
from trademl.files import digest
from trademl.ship.hub.objects import AbsentError, Objects, RefusedError
from trademl.ship.hub.pointer import MAX_BYTES, Channel, Pointer, channel_key, read_pointer
from trademl.ship.manifest import MAX_BYTES as MAX_MANIFEST_BYTES
from trademl.ship.manifest import parse_manifest
from trademl.ship.signing import MAX_SIGNATURE_BYTES, SIGNATURE, Trust

ROOT = "trademl/v1"
LOOKS = 3  # a body that is not what its hash says is fetched so often: one bit may flip on the way

_T = TypeVar("_T")


@dataclass(frozen=True)
class Standing:
    """What a channel names now: the pointer, its bytes, and the tag that a change must name."""

    pointer: Pointer
    data: bytes
    tag: str

    @property
    def sha256(self) -> str:
        """Of the bytes."""
        return digest(self.data)


@dataclass(frozen=True)
class Published:
    """A revision on the hub: proven to be what its name says and signed by a key that counts here."""

    name: str
    manifest: dict = field(repr=False)
    manifest_bytes: bytes = field(repr=False)
    signature: bytes = field(repr=False)

    @property
    def gate(self) -> dict:
        """What a pointer keeps of its gate."""
        return {"passed": self.manifest["gate"]["passed"], "sentence": self.manifest["gate"]["sentence"]}


@dataclass(frozen=True)
class Room:
    """One line on the hub, for reading. `makers` sign revisions, `approvers` sign approvals; often one key is both."""

    objects: Objects
    line: str
    makers: Trust = field(repr=False)
    approvers: Trust = field(repr=False)

    def standing(self, channel: str = Channel.APPROVED) -> Standing | None:
        """What a channel names; None when it names nothing yet. Raises HubError for a pointer that is not to be believed."""
        key = self.path(channel_key(channel))
        return self._patiently(lambda: self._standing(key, channel))

    def published(self, name: str, manifest_sha256: str | None = None) -> Published:
        """A revision's manifest, with the hash and the signature that it must have. Raises HubError."""
        return self._patiently(lambda: self._published(name, manifest_sha256))

    def blob(self, entry: dict) -> bytes:
        """The bytes of a manifest's entry of a file, of its size and hash. Raises HubError."""
        key = self.path(blob_key(entry["sha256"]))

        def fetch() -> bytes:
            data = self.objects.get(key, entry["bytes"]).data
            if len(data) != entry["bytes"] or digest(data) != entry["sha256"]:
                raise HubError(
                    f"{self.objects.where}: {key} ({entry['name']}) is not what its name says; "
                    "`trademl hub push REV --heal` from where the revision is whole replaces it"
                )
            return data

        return self._patiently(fetch)

    def begun(self) -> set[str]:
        """Names of the revisions whose manifest lies there, with or without its signature."""
        return self._with_file("manifest.json")

    def revisions(self) -> list[str]:
        """Names of the revisions that lie there whole, by name."""
        return sorted(self._with_file(SIGNATURE))

    def find(self, start: str) -> str:
        """The name of a published revision, from the start of it. UsageError when none or several fit."""
        found = [name for name in self.revisions() if name.startswith(start)]
        if not start or len(found) != 1:
            what = f"{len(found)} revisions" if found else "no revision"
            raise UsageError(
                f"{self.objects.where}: {what} of the line {self.line} named {start!r}; "
                "`trademl hub verify` lists what is there, `trademl hub push` publishes"
            )
        return found[0]

    def path(self, key: str) -> str:
        """A key of this line, from the hub's root."""
        return f"{ROOT}/{self.line}/{key}"

    def trust(self, channel: str) -> Trust:
        """Whose signatures count on a channel."""
        return self.approvers if channel == Channel.APPROVED else self.makers

    def _with_file(self, file: str) -> set[str]:
        prefix = self.path("revisions/")
        parts = [entry.key.removeprefix(prefix).split("/") for entry in self.objects.list(prefix)]
        return {part[0] for part in parts if part[1:] == [file]}

    def _standing(self, key: str, channel: str) -> Standing | None:
        try:
            found = self.objects.get(key, MAX_BYTES)
        except AbsentError:
            return None
        pointer = read_pointer(found.data, self.trust(channel), channel, self.line, f"{self.objects.where}: {key}")
        return Standing(pointer, found.data, found.tag)

    def _published(self, name: str, manifest_sha256: str | None) -> Published:
        key = self.path(f"revisions/{name}/manifest.json")
        data = self.objects.get(key, MAX_MANIFEST_BYTES).data
        if digest(data)[:16] != name or (manifest_sha256 is not None and digest(data) != manifest_sha256):
            raise HubError(f"{self.objects.where}: {key} is not the manifest that is named by its hash. Do not use it")
        signature = self.objects.get(self.path(f"revisions/{name}/{SIGNATURE}"), MAX_SIGNATURE_BYTES).data
        if not self.makers.pinned:
            raise UsageError("no key is pinned here, so no revision can be believed; put the trainer's public key into trusted.txt")
        try:
            self.makers.check(data, signature)
            manifest = parse_manifest(data)
        except RevisionError as refusal:
            raise HubError(f"{self.objects.where}: revision {name} {refusal}") from refusal
        self.check_line(manifest["line"])
        return Published(name, manifest, data, signature)

    def _patiently(self, look: Callable[[], _T]) -> _T:
        """Look again when what came is not what it must be: a bit may have flipped on the way. The store's own refusals stand."""
        for left in reversed(range(LOOKS)):
            try:
                return look()
            except RefusedError:
                raise
            except HubError:
                if not left:
                    raise
        raise AssertionError

    def check_line(self, line: str) -> None:
        """HubError for a revision of another line."""
        if line != self.line:
            raise HubError(f"a revision of the line {line} does not belong to {self.line} on the hub")


def blob_key(sha256: str) -> str:
    """Where a file's bytes lie."""
    return f"blobs/sha256/{sha256[:2]}/{sha256}"
