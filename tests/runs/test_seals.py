"""Checksums and signatures of a run's records."""

import hashlib
from pathlib import Path

import pytest

from canaryaudit.errors import UsageError
from canaryaudit.records import Manifest, StageRun
from canaryaudit.runs import seals
from canaryaudit.runs.run_directory import RunDirectory

KEY = b"0123456789abcdef-a key for tests"
TRAIN = StageRun(stage="train", argv=("train",), started="2024-01-01T00:00:00Z", seconds=1.0)


# --- checksums


def test_a_change_of_any_field_breaks_the_seal(manifest: Manifest) -> None:
    sealed = seals.resealed(None, manifest)
    assert seals.is_sealed(sealed)
    assert not seals.is_sealed(manifest)
    for change in ({"commit": "abc"}, {"warnings": ("x",)}, {"records": {"model.json": ("0" * 64,)}}):
        assert not seals.is_sealed(sealed.model_copy(update=change))


def test_a_later_command_does_not_mend_a_broken_seal(manifest: Manifest) -> None:
    broken = seals.resealed(None, manifest).model_copy(update={"commit": "abc"})
    assert not seals.is_sealed(seals.resealed(broken, broken.model_copy(update={"stages": (TRAIN,)})))


@pytest.mark.parametrize(
    ("records", "actual", "state"),
    [
        ({}, "new", "unsealed"),
        ({}, seals.ABSENT, "unfinished"),
        ({"r": ("old",)}, "old", "sealed"),
        ({"r": ("old",)}, "new", "changed"),
        ({"r": ("old",)}, seals.ABSENT, "deleted"),
        ({"r": ("old", "new")}, "old", "sealed"),
        ({"r": ("old", "new")}, "new", "sealed"),
        ({"r": (seals.ABSENT, "new")}, seals.ABSENT, "unfinished"),
    ],
)
def test_what_is_there_is_compared_with_what_was_written(
    records: dict[str, tuple[str, ...]], actual: str, state: str
) -> None:
    assert seals.seal_state(records, "r", actual) == state


def test_a_record_is_sealed_whenever_its_writing_is_interrupted(manifest: Manifest) -> None:
    """Before, between and after the writes of the manifest and of the record, for the first time and again."""
    current, actual = manifest, seals.ABSENT
    for new in ("first", "second"):
        during = seals.replacing(current, "r", new)
        for instant in (actual, new):
            assert seals.seal_state(during.records, "r", instant) in ("sealed", "unfinished")
        current, actual = seals.replaced(during, "r", new), new
        assert seals.seal_state(current.records, "r", actual) == "sealed"
    assert seals.seal_state(current.records, "r", "first") == "changed", "the old one does not stay valid"


# --- keys


def test_a_key_is_read_from_a_file_or_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_bytes(KEY + b"\r\n")
    monkeypatch.setenv("AUDIT_KEY", KEY.decode())
    assert seals.read_key(str(tmp_path / "key")) == seals.read_key("env:AUDIT_KEY") == KEY


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"short", "the key has 5 bytes: expected 16 to"), (b"", "0 bytes"), (b"x" * 5000, "expected 16 to 4,096")],
)
def test_what_is_no_key_is_refused_and_not_shown(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(UsageError, match=message) as error:
        seals.read_key(str(tmp_path / "key"))
    assert "short" not in str(error.value)


@pytest.mark.parametrize(
    ("source", "message"), [("missing", "no key file"), (".", "no key file"), ("env:X", "not set")]
)
def test_a_missing_key_is_named(source: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("X", raising=False)
    with pytest.raises(UsageError, match=message):
        seals.read_key(source)


# --- signatures


def test_a_signature_is_of_one_manifest_under_one_key(manifest: Manifest) -> None:
    sealed = seals.resealed(None, manifest)
    signature = seals.sign(sealed, KEY)
    assert seals.is_signed_by(sealed, signature, KEY)
    assert not seals.is_signed_by(sealed, signature, KEY[::-1])
    for change in ({"commit": "abc"}, {"records": {"model.json": ("0" * 64,)}}, {"stages": (TRAIN,)}):
        rewritten = seals.resealed(None, manifest.model_copy(update=change))
        assert not seals.is_signed_by(rewritten, signature, KEY), change


def test_a_report_leaves_the_signature_valid(manifest: Manifest) -> None:
    signature = seals.sign(manifest, KEY)
    report = TRAIN.model_copy(update={"stage": "report"})
    assert seals.is_signed_by(manifest.model_copy(update={"stages": (report,)}), signature, KEY)


def test_a_signature_is_the_standard_one(manifest: Manifest) -> None:
    """HMAC-SHA256 as RFC 2104 defines it, worked out by hand."""
    padded = KEY.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded) + seals.content_bytes(manifest)).digest()
    expected = hashlib.sha256(bytes(byte ^ 0x5C for byte in padded) + inner).hexdigest()
    assert seals.sign(manifest, KEY).hmac_sha256 == expected


def test_a_signature_is_kept_in_the_run(run: RunDirectory) -> None:
    run.write_signature(KEY)
    assert seals.is_signed_by(run.manifest, run.signature(), KEY)
    assert KEY.decode() not in "".join(path.read_text("utf-8") for path in run.path.glob("*.json"))
