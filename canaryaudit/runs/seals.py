"""Checksums and signatures: how a run directory shows that its records are those that were written.

The manifest has the SHA-256 of every record, and one of itself. The records have those of the texts and weights, so
whoever changes one file must change others to match. That finds accidents and careless edits. Whoever recomputes every
checksum is stopped by a signature only: HMAC-SHA256 over the manifest, with a key that is not in the run directory.
"""

import hashlib
import hmac
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeVar

from canaryaudit.errors import UsageError
from canaryaudit.records import SCHEMA_VERSION, RunManifest
from canaryaudit.records.base import Record

ABSENT = ""
"""In place of a checksum: the record may be missing, since it is being written or replaced."""
LEAST_KEY_BYTES = 16
_MOST_KEY_BYTES = 4096
_ENVIRONMENT = "env:"
M = TypeVar("M", bound=RunManifest)

SealState = Literal["sealed", "unfinished", "unsealed", "changed", "deleted"]


class Signature(Record):
    """signature.json: the signature of a run directory's manifest."""

    schema_version: int = SCHEMA_VERSION
    algorithm: Literal["hmac-sha256"] = "hmac-sha256"
    hmac_sha256: str
    """Hexadecimal, over the manifest without its own checksum and its reports."""


def content_bytes(manifest: RunManifest) -> bytes:
    """Return what a manifest's checksum is taken of: everything but the checksum."""
    return manifest.model_dump_json(exclude={"checksum"}).encode("utf-8")


def checksum_of(manifest: RunManifest) -> str:
    """Return the SHA-256 of a manifest's contents, in hexadecimal."""
    return hashlib.sha256(content_bytes(manifest)).hexdigest()


def is_sealed(manifest: RunManifest) -> bool:
    """Return whether a manifest has its own checksum."""
    return hmac.compare_digest(manifest.checksum.encode("utf-8"), checksum_of(manifest).encode("utf-8"))


def resealed(old: RunManifest | None, new: M) -> M:
    """Return the manifest to write in place of another, with its checksum; a broken seal stays broken.

    Args:
        old: The manifest in the run directory; None if there is none.
        new: The new one.
    """
    if old is not None and not is_sealed(old):
        return new
    return new.model_copy(update={"checksum": checksum_of(new)})


def replacing(manifest: M, name: str, new: str) -> M:
    """Return the manifest to write before a record is: its old state is still accepted, the new one already is.

    Args:
        manifest: The current one.
        name: The record's path within the run directory.
        new: The record's SHA-256, or ``ABSENT`` before it is removed.
    """
    states = tuple(dict.fromkeys((*manifest.records.get(name, (ABSENT,)), new)))
    return manifest.model_copy(update={"records": {**manifest.records, name: states}})


def replaced(manifest: M, name: str, new: str) -> M:
    """Return the manifest to write after a record is."""
    unproven = tuple(own for own in manifest.unproven if own != name)
    return manifest.model_copy(update={"records": {**manifest.records, name: (new,)}, "unproven": unproven})


def seal_state(records: Mapping[str, tuple[str, ...]], name: str, actual: str) -> SealState:
    """Compare a record with the checksums that the manifest has of it.

    Args:
        records: Of the manifest.
        name: The record's path within the run directory.
        actual: Its SHA-256, or ``ABSENT`` if it is missing.

    Returns:
        ``unfinished`` if it is missing because a command was interrupted; ``unsealed`` if the manifest does not know
        it.
    """
    accepted = records.get(name)
    if accepted is None:
        return "unfinished" if actual == ABSENT else "unsealed"
    if actual in accepted:
        return "unfinished" if actual == ABSENT else "sealed"
    return "deleted" if actual == ABSENT else "changed"


def read_key(source: str) -> bytes:
    """Read a signing key.

    Args:
        source: A file, or ``env:NAME`` for an environment variable. Line breaks at the end do not count.

    Raises:
        UsageError: It cannot be read, or is too short to be a key.
    """
    if source.startswith(_ENVIRONMENT):
        name = source.removeprefix(_ENVIRONMENT)
        key = os.environb.get(os.fsencode(name), b"")
        if not key:
            raise UsageError(f"the key's environment variable {name!r} is not set: set it, or give a key file")
    else:
        path = Path(source)
        try:
            if not path.is_file():
                raise UsageError(f"no key file {source!r}: give a file with the key, or env:NAME")
            with path.open("rb") as file:
                key = file.read(_MOST_KEY_BYTES + 1)
        except OSError as error:
            raise UsageError(f"cannot read the key file {source!r}: {error.strerror}; check its permissions") from error
    key = key.rstrip(b"\r\n")
    if not LEAST_KEY_BYTES <= len(key) <= _MOST_KEY_BYTES:
        raise UsageError(
            f"the key has {len(key):,} bytes: expected {LEAST_KEY_BYTES} to {_MOST_KEY_BYTES:,}, such as from: openssl "
            "rand -hex 32"
        )
    return key


def sign(manifest: RunManifest, key: bytes) -> Signature:
    """Sign a manifest, and with it every record, text and model whose checksum it leads to."""
    return Signature(hmac_sha256=_hmac(manifest, key))


def is_signed_by(manifest: RunManifest, signature: Signature, key: bytes) -> bool:
    """Return whether a signature is that of this manifest under this key."""
    return hmac.compare_digest(signature.hmac_sha256.encode("utf-8"), _hmac(manifest, key).encode("utf-8"))


def _hmac(manifest: RunManifest, key: bytes) -> str:
    # Reports change nothing that is measured, and are written after the signature.
    stages = tuple(stage for stage in manifest.stages if stage.stage != "report")
    return hmac.new(key, content_bytes(manifest.model_copy(update={"stages": stages})), hashlib.sha256).hexdigest()
