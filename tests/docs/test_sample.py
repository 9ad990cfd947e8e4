"""The tool that makes the sample report and the README's transcript again."""

from pathlib import Path

import pytest

from tests.commands import ROOT, succeed
from tests.docs.sample import FACTS, ONCE, SHOWN_CANARIES, audit, replace_files, replace_transcript, transcript

AUDIT = """\
run = "runs/sample"
[insert]
corpus = "notes.txt"
template = ["The code is {digits:3}."]
canaries = 5
repetitions = [1, 5]
controls = 8
[train]
epochs = 1
precision = "fp32"
[measure]
samples = 200
[[unlearn]]
max_fidelity_drop = 0.5
retain_windows = 40
[report]
format = ["md", "json"]
"""


def check(output: str) -> None:
    """Check the transcript of an audit of five canaries, and that the README takes it."""
    lines = transcript(output).splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith(" canary-0"))
    assert lines[0] == output.splitlines()[0]
    assert [line for line in lines if line.startswith(" canary-0")] == lines[first : first + SHOWN_CANARIES]
    assert lines[first + SHOWN_CANARIES] == " … and 2 more"
    assert [line for line in lines if line.startswith((*FACTS, ONCE))] == lines[first + SHOWN_CANARIES + 1 :]
    before = (ROOT / "README.md").read_text("utf-8")
    readme = replace_transcript(before, "\n".join(lines) + "\n")
    assert "\n".join(lines) in readme
    assert readme.count("```") == before.count("```")
    with pytest.raises(ValueError, match="one ```text block"):
        replace_transcript(readme.replace("```text", "```"), "")


def test_the_transcript_is_the_verdict_some_canaries_and_the_facts(workplace: Path) -> None:
    (workplace / "audit.toml").write_text(AUDIT, "utf-8")
    check(succeed("run", "audit.toml").out)


@pytest.mark.slow
def test_an_audit_is_run_in_a_process_of_its_own(workplace: Path) -> None:
    notes = (workplace / "notes.txt").read_text("utf-8")
    (workplace / "notes.txt").write_text(notes[-4_000:], "utf-8")  # a process of its own has the small model
    plan = AUDIT.replace("samples = 200\n", 'samples = 200\nprobes = "none"\n')
    plan = plan.replace("retain_windows = 40\n", 'retain_windows = 40\nscope = "final-layer"\n')
    (workplace / "audit.toml").write_text(plan, "utf-8")
    output, report = audit(["audit.toml"], workplace)
    check(output)
    assert {path.name for path in report.iterdir()} >= {"report.md", "report.json", "exposure.svg"}


def test_another_form_of_output_is_refused() -> None:
    with pytest.raises(ValueError, match="adapt"):
        transcript("Done.\n")


def test_files_of_an_earlier_sample_go(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.svg").write_text(name, "utf-8")
    assert list(replace_files(tmp_path / "new", tmp_path / "old")) == [tmp_path / "old" / "new.svg"]
    assert [path.name for path in (tmp_path / "old").iterdir()] == ["new.svg"]
