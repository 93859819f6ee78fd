"""Ed25519 signatures: who made a revision, and whose revisions count on this machine.

    <keys>/signing.key    0600, the private key, PEM; it never leaves this file
    <keys>/trusted.txt    public keys whose signatures count here, `ed25519:` and 64 hex a line; two during a rotation

`manifest.sig` lies beside `manifest.json`: {"key": 16 hex, "signature": 128 hex}, over MANIFEST_DOMAIN and the manifest's bytes.
A manifest names the hash of every other file, so its signature speaks for the whole revision.

Needs `cryptography` where a signature is made or checked, and nothing beside the standard library before that.
"""

import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from trademl.errors import MissingExtraError, RevisionError, UsageError
from trademl.files import canonical_json, digest, make_folders, read_regular, strict_json, write_atomically, write_new

SIGNATURE = "manifest.sig"
MAX_SIGNATURE_BYTES = 1024
MANIFEST_DOMAIN = b"trademl-manifest-v1\n"  # signed before the bytes, so that no other signed thing can be passed off as a manifest
POINTER_DOMAIN = b"trademl-pointer-v1\n"  # before the hub's pointers
MAX_PINNED = 2  # the key in use, and during a rotation the one before
PRIVATE_FILE, TRUSTED_FILE = "signing.key", "trusted.txt"

_KEY = re.compile(r"ed25519:([0-9a-f]{64})")
_HEX16 = re.compile(r"[0-9a-f]{16}")
_HEX128 = re.compile(r"[0-9a-f]{128}")
_WHAT = {MANIFEST_DOMAIN: "manifest", POINTER_DOMAIN: "approval"}


@dataclass(frozen=True)
class PublicKey:
    """Whom a signature belongs to."""

    raw: bytes  # 32

    @classmethod
    def parse(cls, text: str) -> "PublicKey":
        """From `ed25519:` and 64 hex. Raises UsageError for anything else."""
        found = _KEY.fullmatch(text.strip()) if isinstance(text, str) else None
        if found is None:
            wanted = "a public key: ed25519: and 64 hex digits, as `trademl keys show` prints it"
            raise UsageError(f"{'a private key' if 'PRIVATE' in str(text) else repr(text)[:80]} is not {wanted}")
        return cls(bytes.fromhex(found[1]))

    @property
    def name(self) -> str:
        """16 hex: the start of its hash."""
        return digest(self.raw)[:16]

    def __str__(self) -> str:
        return f"ed25519:{self.raw.hex()}"

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether the owner of this key signed the message."""
        ed25519 = _ed25519()
        from cryptography.exceptions import InvalidSignature

        try:
            ed25519.Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except (InvalidSignature, ValueError):  # ValueError: 32 bytes that are not a point of the curve
            return False
        return True


@dataclass(frozen=True)
class Trust:
    """Whose signatures count, and what signs here. Without a pinned key nobody is asked for a signature."""

    pinned: tuple[PublicKey, ...] = ()
    signs_with: Path | None = field(default=None, repr=False)  # the file of the private key

    def __post_init__(self):
        if len(self.pinned) > MAX_PINNED or len(set(self.pinned)) != len(self.pinned):
            names = ", ".join(key.name for key in self.pinned)
            raise UsageError(f"{len(self.pinned)} keys are pinned ({names}); at most {MAX_PINNED}, without repeats: one and its successor")

    @classmethod
    def of(cls, keys: Iterable[str]) -> "Trust":
        """The public keys in a bot's configuration. Raises UsageError for none, for too many, and for what is not a public key."""
        pinned = tuple(PublicKey.parse(key) for key in ([keys] if isinstance(keys, str) else keys))
        if not pinned:
            raise UsageError("keys = []: name the public key of whoever trains (`trademl keys show`), or None for an unsigned local store")
        return cls(pinned)

    def signer(self) -> PublicKey | None:
        """The public half of the key that signs here; None where nothing signs. Raises UsageError as `sign`."""
        return None if self.signs_with is None else _private_key(self.signs_with)[1]

    def sign(self, message: bytes, domain: bytes = MANIFEST_DOMAIN) -> bytes | None:
        """The content of `manifest.sig`; None where nothing signs. Raises UsageError for a private key that cannot be used."""
        if self.signs_with is None:
            return None
        private, public = _private_key(self.signs_with)
        if public not in self.pinned:
            raise UsageError(f"{self.signs_with}: its public key {public.name} is not in {TRUSTED_FILE} beside it; add {public}")
        return canonical_json({"key": public.name, "signature": private.sign(domain + message).hex()})

    def check(self, message: bytes, signature: bytes | None, domain: bytes = MANIFEST_DOMAIN) -> str:
        """What is to be said of a manifest's signature (None: there is none). Raises RevisionError when it does not count here."""
        if signature is None:
            if self.pinned:
                raise RevisionError(
                    f"is not signed, and here the key {self._names()} is pinned; "
                    "`trademl retrain` makes a signed one where that key is. Do not use this one"
                )
            return "not signed, and no key is pinned here: anybody who can write to this folder could have made it"
        key, sign = _read_signature(signature)
        if not self.pinned:
            return f"signed by key {key}; no key is pinned here, so the signature was not checked"
        owner = next((one for one in self.pinned if one.name == key), None)
        if owner is None:
            raise RevisionError(f"is signed by key {key}, and the key {self._names()} is pinned here. Do not use it")
        if not owner.verifies(sign, domain + message):
            raise RevisionError(
                f"its signature is not one that key {key} gave to this {_WHAT[domain]}: it is forged or altered. Do not use it"
            )
        return f"signed by key {key}, which is pinned here"

    def _names(self) -> str:
        return " or ".join(key.name for key in self.pinned)


NO_TRUST = Trust()


def _read_signature(data: bytes) -> tuple[str, bytes]:
    """Key and signature out of `manifest.sig`. Raises RevisionError unless it is exactly what `Trust.sign` writes."""
    try:
        record = strict_json(data)
        key, sign = record["key"], record["signature"]
        if not (_HEX16.fullmatch(key) and _HEX128.fullmatch(sign) and canonical_json(record) == data and len(record) == 2):
            raise ValueError("it does not hold a key and a signature in canonical form")
    except (KeyError, TypeError, ValueError) as refusal:
        raise RevisionError(f"its {SIGNATURE} cannot be read ({refusal}). Do not use it") from refusal
    return key, bytes.fromhex(sign)


# ---------------------------------------------------------------- the folder with the keys


@dataclass(frozen=True)
class KeyFolder:
    """A user's folder of keys. Construction touches nothing."""

    path: Path

    @property
    def private(self) -> Path:
        """The private key."""
        return self.path / PRIVATE_FILE

    @property
    def trusted(self) -> Path:
        """The public keys that count on this machine, the newest first."""
        return self.path / TRUSTED_FILE

    def trust(self) -> Trust:
        """What this folder says; `NO_TRUST` where there is none. Raises UsageError for a folder that contradicts itself."""
        signs_with = self.private if os.path.lexists(self.private) else None
        if not os.path.lexists(self.trusted):
            if signs_with is not None:
                raise UsageError(f"{self.private}: {TRUSTED_FILE} beside it is missing; put it back, or move the key away")
            return NO_TRUST
        if signs_with is not None:
            _check_mode(signs_with)  # now, not after the training whose result it will sign
        try:
            lines = read_regular(self.trusted, 4096).decode("ascii").split()
            return Trust(tuple(PublicKey.parse(line) for line in lines), signs_with)
        except (OSError, ValueError) as refusal:
            raise UsageError(f"{self.trusted}: {refusal}") from refusal

    def signer(self) -> PublicKey | None:
        """The public half of the key that signs here. Raises UsageError for a private key that cannot be used."""
        return _private_key(self.private)[1] if os.path.lexists(self.private) else None

    def create(self) -> PublicKey:
        """A first pair of keys. Raises UsageError when there is one, or where a private key must not lie."""
        self._check_place()
        for path, remedy in ((self.private, "`trademl keys rotate` replaces it"), (self.trusted, "move it away first")):
            if os.path.lexists(path):
                raise UsageError(f"{path}: is there already; {remedy}")
        pem, public = _new_pair()
        self._make_folder()
        self._write_trusted((public,))
        try:
            write_new(self.private, pem, mode=0o600)
        except OSError as refusal:
            raise UsageError(f"{self.private} could not be written ({refusal})") from refusal
        return public

    def rotate(self) -> PublicKey:
        """A new pair signs from now on; the key before it still counts. UsageError when an earlier rotation was not finished."""
        self._check_place()
        pinned, before = self.trust().pinned, self.signer()
        if before is None:
            raise UsageError(f"{self.private}: there is no key to replace; `trademl keys new` makes the first one")
        others = [key.name for key in pinned if key != before]
        if others:
            raise UsageError(
                f"{self.trusted}: key {', '.join(others)} of the last rotation still counts; `trademl keys rotate --finish` ends that first"
            )
        pem, public = _new_pair()
        self._write_trusted((public, before))  # first: a crash between the two leaves a key that nobody has, and the old one still signs
        self._write(self.private, pem, 0o600)
        return public

    def finish(self) -> tuple[PublicKey, ...]:
        """End a rotation: only the key that signs counts from now on. Returns what was dropped; UsageError when nothing signs here."""
        pinned, signer = self.trust().pinned, self.signer()
        if signer is None:
            raise UsageError(f"{self.private}: no key signs here, so none can be the only one that counts")
        self._write_trusted((signer,))
        return tuple(key for key in pinned if key != signer)

    def _check_place(self) -> None:
        """A private key does not lie in a clone, where one careless `git add` publishes it."""
        place = self.path.absolute()
        clone = next((one for one in (place, *place.parents) if (one / ".git").exists()), None)
        if clone is not None:
            raise UsageError(f"[paths] keys = {self.path} lies in the clone {clone}; a private key belongs outside (auto)")

    def _make_folder(self) -> None:
        try:
            make_folders(self.path)
            self.path.chmod(0o700)
        except OSError as refusal:
            raise UsageError(f"{self.path} could not be made ({refusal})") from refusal

    def _write_trusted(self, keys: Iterable[PublicKey]) -> None:
        self._write(self.trusted, "".join(f"{key}\n" for key in keys).encode(), 0o644)

    def _write(self, path: Path, data: bytes, mode: int) -> None:
        try:
            write_atomically(path, data, mode=mode)
        except OSError as refusal:
            raise UsageError(f"{path} could not be written ({refusal}); what was there is still there") from refusal


def user_key_folder() -> Path:
    """Where keys lie unless the settings say otherwise: $XDG_CONFIG_HOME/trademl/keys, else ~/.config/trademl/keys (Windows: %APPDATA%)."""
    named = os.environ.get("XDG_CONFIG_HOME") or (os.environ.get("APPDATA") if os.name == "nt" else None)
    return (Path(named) if named else Path.home() / ".config") / "trademl" / "keys"


def key_folder(setting: str) -> KeyFolder:
    """The folder that `[paths] keys` names; auto: `user_key_folder`."""
    return KeyFolder(user_key_folder() if setting == "auto" else Path(setting).expanduser())


def _ed25519():
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise MissingExtraError("signatures need the package cryptography; pip install 'trademl[bot]'") from None
    return ed25519


def _new_pair() -> tuple[bytes, PublicKey]:
    """A private key as PEM, and its public half."""
    ed25519 = _ed25519()
    from cryptography.hazmat.primitives import serialization

    private = ed25519.Ed25519PrivateKey.generate()
    pem = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return pem, PublicKey(private.public_key().public_bytes_raw())


def _check_mode(path: Path) -> None:
    """UsageError when others than its owner may read a private key."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if os.name != "nt" and mode & 0o077:
        raise UsageError(f"{path}: others may read it (mode {mode:04o}); `chmod 600` it, or rotate the key if somebody may have read it")


def _private_key(path: Path):
    """The key object in a file that only its owner may read, and its public half. UsageError otherwise; no text ever shows the key."""
    ed25519 = _ed25519()
    from cryptography.hazmat.primitives import serialization

    try:
        _check_mode(path)
        private = serialization.load_pem_private_key(read_regular(path, 4096), password=None)
    except OSError as refusal:
        raise UsageError(f"{path}: cannot be read ({refusal.strerror})") from refusal
    except UsageError:  # a ValueError too, and it has said what is wrong
        raise
    except (TypeError, ValueError):
        raise UsageError(f"{path}: is not an unencrypted private key in PEM; `trademl keys new` writes one") from None
    if not isinstance(private, ed25519.Ed25519PrivateKey):
        raise UsageError(f"{path}: is a key of another kind than Ed25519; `trademl keys new` writes one")
    return private, PublicKey(private.public_key().public_bytes_raw())
