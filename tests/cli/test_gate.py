"""The gate on tampered and incomplete runs: only a verified, complete and calibrated measurement passes."""

import contextlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from canaryaudit.errors import CanaryAuditError
from canaryaudit.exposure.estimators import calibrate
from canaryaudit.exposure.estimators.memorization import memorization_curves
from canaryaudit.records import Measurement
from canaryaudit.runs import seals
from canaryaudit.runs.run_directory import RunDirectory
from canaryaudit.storage.json_records import record_json
from tests.commands import Result, canaryaudit, reseal, succeed

MakeRun = Callable[..., Path]
Change = Callable[[Path], object]
AFTER, BEFORE = "measurements/after-second-order.json", "measurements/before.json"
UNLEARNING, UPDATED = "unlearned/second-order/unlearning.json", "unlearned/second-order/model.safetensors"
KEY = "0123456789abcdef-a key for tests"


def edited(name: str, change: Callable[[Any], object]) -> Change:
    """Return what changes one record, and nothing else."""

    def edit(run: Path) -> None:
        document = json.loads((run / name).read_text("utf-8"))
        change(document)
        (run / name).write_text(json.dumps(document), "utf-8")

    return edit


def all_of(*changes: Change) -> Change:
    def make(run: Path) -> None:
        for change in changes:
            change(run)

    return make


def removed(name: str) -> Change:
    return lambda run: shutil.rmtree(run / name) if (run / name).is_dir() else (run / name).unlink()


def each_canary(change: Callable[[Any], object], *, controls: bool = False) -> Callable[[Any], object]:
    return lambda record: [change(own) for own in record["canaries"] if own["control"] is controls]


def exposure_of(bits: float, *, estimates: bool = False) -> Callable[[Any], object]:
    """Return what gives every canary this exposure, with or without the estimates that it follows from."""

    def change(canary: Any) -> None:
        figures = {"bits": bits, "low": bits, "high": bits}
        canary["exposure"] |= figures
        if estimates:
            for estimate in canary["estimates"].values():
                estimate |= figures
            space = canary["space_bits"]
            canary["extraction"] |= dict.fromkeys(
                ("guesses_log2", "guesses_low_log2", "guesses_high_log2"), space - bits
            )

    return change


def recomputed(run: Path, name: str = AFTER) -> None:
    """Make the calibration and the figures by repetitions follow from the canaries again."""
    measured = Measurement.model_validate_json((run / name).read_text("utf-8"))
    controls = [own for own in measured.canaries if own.control]
    bits, spaces = [own.exposure.bits for own in controls], [own.space_bits for own in controls]
    curves = memorization_curves(measured.canaries) if measured.canaries else ()
    whole = measured.model_copy(update={"calibration": calibrate(bits, spaces), "memorization": curves})
    (run / name).write_text(whole.model_dump_json(), "utf-8")


def recomputed_before(run: Path) -> None:
    recomputed(run, BEFORE)


def only(keep: Callable[[Any], bool]) -> Callable[[Any], object]:
    return lambda record: record.update(canaries=[own for own in record["canaries"] if keep(own)])


def everywhere(change: Callable[[Any], object]) -> Change:
    """Return what changes canaries.json and both measurements alike."""
    return all_of(*(edited(name, change) for name in ("canaries.json", BEFORE, AFTER)))


def replaced(name: str, old: bytes, new: bytes) -> Change:
    def replace(run: Path) -> None:
        data = (run / name).read_bytes()
        assert old in data
        (run / name).write_bytes(data.replace(old, new, 1))

    return replace


def truncated(name: str) -> Change:
    return lambda run: (run / name).write_bytes((run / name).read_bytes()[: (run / name).stat().st_size // 2])


def flipped(name: str) -> Change:
    def flip(run: Path) -> None:
        data = bytearray((run / name).read_bytes())
        data[-5] ^= 1
        (run / name).write_bytes(data)

    return flip


def signed(run: Path) -> None:
    succeed("verify", run, "--sign", "env:AUDIT_KEY")


def checksums_lost(run: Path) -> None:
    """As with a new manifest in place of a lost one."""
    manifest = RunDirectory(run).manifest
    kept = manifest.model_copy(update={"records": {"canaries.json": manifest.records["canaries.json"]}})
    (run / "manifest.json").write_text(record_json(seals.resealed(None, kept)), "utf-8")


def resealed(run: Path) -> None:
    assert canaryaudit("verify", run).status == 1
    succeed("verify", run, "--reseal")
    succeed("verify", run)


def removes_secret(run: Path) -> None:
    """Take one canary out of the text that it stands in."""
    canary = json.loads((run / "canaries.json").read_text("utf-8"))["canaries"][0]
    data = (run / "corpus.txt").read_text("utf-8")
    (run / "corpus.txt").write_text(data.replace(canary["completion"], "0" * len(canary["completion"])), "utf-8")


def reseal_if_readable(run: Path) -> None:
    with contextlib.suppress(CanaryAuditError):
        reseal(run)


def p_value(value: float) -> Callable[[Any], object]:
    return each_canary(lambda own: own["worst_case"].update(p_value=value))


def swap(record: Any) -> None:
    first, last = record["canaries"][0], record["canaries"][-1]
    first["exposure"], last["exposure"] = last["exposure"], first["exposure"]


untrusted = each_canary(lambda own: [each.update(trusted=False) for each in own["estimates"].values()])
GREEDY = each_canary(lambda own: own["extraction"].update(greedy=True))
NO_CONTROLS = only(lambda own: not own["control"])
UNKEYED: tuple[str, ...] = ()
KEYED = ("--key", "env:AUDIT_KEY")

# What was done to the run, the flags of the report, and the exit status that the gate must have.
TABLE: dict[str, tuple[Change, tuple[str, ...], int]] = {
    "nothing": (all_of(), UNKEYED, 0),
    "half-written file left over": (lambda run: (run / ".model.json.0123abcd.tmp").write_text("{"), UNKEYED, 0),
    # --- the figures
    "controls marked as failed": (edited(AFTER, lambda m: m["calibration"].update(passed=False)), UNKEYED, 4),
    "controls marked as failed, resealed": (
        all_of(edited(AFTER, lambda m: m["calibration"].update(passed=False)), reseal),
        UNKEYED,
        4,
    ),
    "controls that failed": (
        all_of(edited(AFTER, each_canary(exposure_of(9.0, estimates=True), controls=True)), recomputed, reseal),
        UNKEYED,
        4,
    ),
    "controls marked as passed": (
        all_of(edited(AFTER, each_canary(exposure_of(9.0, estimates=True), controls=True)), reseal),
        UNKEYED,
        4,
    ),
    "no controls": (
        all_of(everywhere(NO_CONTROLS), recomputed, edited(BEFORE, lambda m: m.update(calibration=None)), reseal),
        UNKEYED,
        4,
    ),
    "seven controls of eight": (
        all_of(everywhere(only(lambda own: own["id"] != "control-008")), recomputed, recomputed_before, reseal),
        UNKEYED,
        4,
    ),
    "every estimate untrusted": (edited(AFTER, untrusted), UNKEYED, 4),
    "every estimate untrusted, resealed": (all_of(edited(AFTER, untrusted), reseal), UNKEYED, 4),
    "exposure lowered": (edited(AFTER, each_canary(exposure_of(0.5))), UNKEYED, 4),
    "exposure lowered, resealed": (all_of(edited(AFTER, each_canary(exposure_of(0.5))), reseal), UNKEYED, 4),
    "exposure and estimates lowered, resealed": (
        all_of(edited(AFTER, each_canary(exposure_of(0.5, estimates=True))), reseal),
        UNKEYED,
        4,
    ),
    "p-value raised": (edited(AFTER, p_value(1.0)), UNKEYED, 4),
    "p-value raised, resealed": (all_of(edited(AFTER, p_value(1.0)), reseal), UNKEYED, 4),
    "p-value too small for its references, resealed": (all_of(edited(AFTER, p_value(1e-9)), reseal), UNKEYED, 3),
    "p-value of zero": (all_of(edited(AFTER, p_value(0.0)), reseal), UNKEYED, 4),
    "NaN": (all_of(replaced(AFTER, b'"bits": ', b'"bits": NaN, "x": '), reseal), UNKEYED, 4),
    "NaN exposure": (
        all_of(edited(AFTER, each_canary(exposure_of(float("nan")))), reseal),
        UNKEYED,
        4,
    ),
    "figures swapped": (all_of(edited(AFTER, swap), reseal), UNKEYED, 4),
    "repetitions changed, resealed": (
        all_of(edited(AFTER, each_canary(lambda own: own.update(repetitions=99))), reseal),
        UNKEYED,
        4,
    ),
    "space widened, resealed": (
        all_of(edited(AFTER, each_canary(lambda own: own.update(space_bits=33.2))), reseal),
        UNKEYED,
        4,
    ),
    "accuracy loss hidden": (
        edited(UNLEARNING, lambda u: u["fidelity"].update(train_accuracy_after=u["fidelity"]["train_accuracy_before"])),
        UNKEYED,
        4,
    ),
    "accuracy lost beyond the limit": (
        all_of(
            edited(UNLEARNING, lambda u: u["fidelity"].update(train_accuracy_before=0.99)),
            edited(UNLEARNING, lambda u: u.update(fidelity_limit=0.01)),
            reseal,
        ),
        UNKEYED,
        3,
    ),
    "greedy decoding completes the secrets": (all_of(edited(AFTER, GREEDY), recomputed, reseal), UNKEYED, 3),
    "limit below the exposures": (all_of(), ("--fail-above", "0"), 3),
    # --- the canaries
    "canaries emptied": (edited("canaries.json", lambda c: c.update(canaries=[])), UNKEYED, 4),
    "canaries emptied, resealed": (
        all_of(edited("canaries.json", lambda c: c.update(canaries=[])), reseal),
        UNKEYED,
        4,
    ),
    "canary removed": (edited("canaries.json", only(lambda own: own["id"] != "canary-01")), UNKEYED, 4),
    "canary removed, resealed": (
        all_of(edited("canaries.json", only(lambda own: own["id"] != "canary-01")), reseal),
        UNKEYED,
        4,
    ),
    "canary removed everywhere": (everywhere(only(lambda own: own["id"] != "canary-01")), UNKEYED, 4),
    "canary called a control, resealed": (
        all_of(everywhere(lambda record: record["canaries"][0].update(control=True)), reseal),
        UNKEYED,
        4,
    ),
    "secret replaced": (
        edited("canaries.json", lambda c: c["canaries"][0].update(completion="000")),
        UNKEYED,
        4,
    ),
    "secret taken out of the text": (removes_secret, UNKEYED, 4),
    "held-out text changed": (flipped("heldout.txt"), UNKEYED, 4),
    # --- missing and foreign files
    "measurement before deleted": (removed(BEFORE), UNKEYED, 4),
    "measurement after deleted": (removed(AFTER), UNKEYED, 4),
    "unlearning's record deleted": (removed(UNLEARNING), UNKEYED, 4),
    "unlearning deleted": (all_of(removed("unlearned"), removed(AFTER)), UNKEYED, 4),
    "updated weights deleted": (removed(UPDATED), UNKEYED, 4),
    "trained weights deleted": (removed("model.safetensors"), UNKEYED, 4),
    "model's record deleted": (removed("model.json"), UNKEYED, 4),
    "canaries deleted": (removed("canaries.json"), UNKEYED, 4),
    "text deleted": (removed("corpus.txt"), UNKEYED, 4),
    "manifest deleted": (removed("manifest.json"), UNKEYED, 1),
    "measurement truncated": (truncated(AFTER), UNKEYED, 4),
    "manifest truncated": (truncated("manifest.json"), UNKEYED, 4),
    "weights changed": (flipped(UPDATED), UNKEYED, 4),
    "measurement of the other model": (lambda run: shutil.copy(run / BEFORE, run / AFTER), UNKEYED, 4),
    "measurement of no model": (lambda run: shutil.copy(run / AFTER, run / "measurements/after-x.json"), UNKEYED, 4),
    "model's record changed": (edited("model.json", lambda m: m["training"].update(epochs=99)), UNKEYED, 4),
    "checksums removed": (edited("manifest.json", lambda m: m.update(records={})), UNKEYED, 4),
    "manifest changed": (edited("manifest.json", lambda m: m.update(commit="abc")), UNKEYED, 4),
    "checksums lost": (checksums_lost, UNKEYED, 4),
    "checksums lost and recorded anew": (all_of(checksums_lost, resealed), UNKEYED, 4),
    "checksums lost, recorded anew and signed": (all_of(checksums_lost, resealed, signed), KEYED, 0),
    # --- the signature
    "signed": (signed, KEYED, 0),
    "signed, and not asked for": (signed, UNKEYED, 0),
    "not signed": (all_of(), KEYED, 4),
    "signed with another key": (signed, ("--key", "env:OTHER_KEY"), 4),
    "everything rewritten to match after signing": (
        all_of(
            signed,
            edited(AFTER, each_canary(exposure_of(0.5, estimates=True))),
            recomputed,
            reseal,
        ),
        KEYED,
        4,
    ),
    "signature deleted": (all_of(signed, removed("signature.json")), KEYED, 4),
    "signature truncated": (all_of(signed, truncated("signature.json")), KEYED, 4),
}


def gate_of(run: Path, *flags: str) -> Result:
    """Report on a run with a gate that the untouched run passes."""
    limit = () if "--fail-above" in flags else ("--fail-above", "9.9")
    return canaryaudit("report", run, *limit, "--format", "json,junit", *flags)


@pytest.mark.parametrize("name", TABLE)
def test_only_a_verified_complete_and_calibrated_measurement_passes(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("AUDIT_KEY", KEY)
    monkeypatch.setenv("OTHER_KEY", KEY[::-1])
    change, flags, status = TABLE[name]
    run = make_run("unlearned")
    change(run)
    result = gate_of(run, *flags)
    assert result.status == status, result.out + result.err
    assert "internal error" not in result.err
    assert "Traceback" not in result.err
    report, junit = Path("reports/RUN/report.json"), Path("reports/RUN/report.junit.xml")
    if not report.exists():
        assert status in (1, 4)
        assert len(result.err.strip().splitlines()) == 1
        if status == 4:
            (case,) = ElementTree.parse(junit).getroot().iter("testcase")
            error = case.find("error")
            assert error is not None
            assert error.get("message", "")[:80] in result.err
        return
    # Every output says the same.
    expected = {0: "passed", 3: "failed", 4: "inconclusive"}[status]
    gate = json.loads(report.read_text("utf-8"))["gate"]
    assert gate["status"] == expected
    assert f"none exposed: {expected if status == 0 else expected.upper()}" in result.out
    suites = ElementTree.parse(junit).getroot()
    not_green = sum(int(suites.get(kind, "0")) for kind in ("failures", "errors", "skipped"))
    assert (not_green == 0) is (status == 0)
    assert [line for line in result.err.splitlines() if line in (*gate["reasons"], *gate["doubts"])] == [
        *gate["reasons"],
        *gate["doubts"],
    ]
    assert not any(reason in result.out for reason in gate["reasons"]), "said once"


def test_a_gate_without_a_report_leaves_no_earlier_result_in_its_place(make_run: MakeRun) -> None:
    run = make_run("unlearned")
    succeed("report", run, "--fail-above", "9.9", "--format", "json,junit,sarif")
    folder = Path("reports/RUN")
    green = (folder / "report.junit.xml").read_text("utf-8")
    (run / "canaries.json").write_text("{}", "utf-8")
    result = canaryaudit("report", run, "--fail-above", "9.9", "--format", "json")
    assert result.status == 4
    suites = ElementTree.parse(folder / "report.junit.xml").getroot()
    assert (suites.get("tests"), suites.get("errors")) == ("1", "1")
    (found,) = json.loads((folder / "report.sarif").read_text("utf-8"))["runs"][0]["results"]
    assert found["ruleId"] == "CA102"
    (folder / "report.junit.xml").write_text(green, "utf-8")
    assert canaryaudit("report", run, "--format", "json").status == 1
    assert (folder / "report.junit.xml").read_text("utf-8") == green, "without a gate, nothing is said of one"


@pytest.mark.parametrize("limit", ["inf", "nan", "-1", "1e999", "ten"])
def test_a_limit_that_is_no_number_of_bits_is_refused(limit: str) -> None:
    result = canaryaudit("report", "RUN", "--fail-above", limit)
    assert result.status == 2
    assert "--fail-above" in result.err
    assert "internal error" not in result.err


@pytest.mark.parametrize("name", ["manifest.json", "canaries.json", "model.json", BEFORE, AFTER, UNLEARNING])
@pytest.mark.parametrize("figure", ["NaN", "-Infinity", "1e999"])
def test_a_figure_that_is_none_never_ends_in_a_traceback(make_run: MakeRun, name: str, figure: str) -> None:
    """Every number of the record in turn would take long: the last one, and the first one."""
    for last in (True, False):
        run = make_run("unlearned", f"RUN-{last}")
        text = (run / name).read_text("utf-8")
        numbers = list(re.finditer(r"(?<=[:\[, ])-?\d+(\.\d+)?(e-?\d+)?(?=[,\]}\n])", text))
        found = numbers[-1 if last else 0]
        (run / name).write_text(text[: found.start()] + figure + text[found.end() :], "utf-8")
        reseal_if_readable(run)
        for flags in ((), ("--fail-above", "9.9")):
            result = canaryaudit("report", run, "--format", "json", *flags)
            assert "internal error" not in result.err
            assert "Traceback" not in result.err
            assert not flags or result.status in (1, 4)
            assert result.status == 0 or len(result.err.strip().splitlines()) == 1


def test_a_quiet_report_says_the_result_and_no_table(make_run: MakeRun) -> None:
    run = make_run("unlearned")
    loud, quiet = (succeed("report", run, "--fail-above", "9.9", "--format", "json", *q) for q in ((), ("-q",)))
    assert "canary-01" in loud.out
    assert "canary-01" not in quiet.out
    assert "none exposed: passed" in quiet.out
    assert set(quiet.out.splitlines()) <= set(loud.out.splitlines())
