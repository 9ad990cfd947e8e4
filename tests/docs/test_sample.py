"""The tool that makes the sample report and the README's transcript again."""

from pathlib import Path

import pytest

from tests.commands import ROOT, succeed
from tests.docs.sample import FACTS, replace_files, replace_transcript, transcript

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


def test_the_transcript_is_the_verdict_some_canaries_and_the_facts(workplace: Path) -> None:
    (workplace / "audit.toml").write_text(AUDIT, "utf-8")
    lines = transcript(succeed("run", "audit.toml").out).splitlines()
    assert [line for line in lines if line.strip().startswith("canary-0")] == lines[3:6]
    assert lines[6] == " … and 2 more"
    assert [line for line in lines if line.startswith(FACTS)] == lines[7:]
    readme = replace_transcript((ROOT / "README.md").read_text("utf-8"), "\n".join(lines) + "\n")
    assert "\n".join(lines) in readme
    assert readme.count("```") == (ROOT / "README.md").read_text("utf-8").count("```")
    with pytest.raises(ValueError, match="one ```text block"):
        replace_transcript(readme.replace("```text", "```"), "")


def test_another_form_of_output_is_refused() -> None:
    with pytest.raises(ValueError, match="adapt"):
        transcript("Done.\n")


def test_files_of_an_earlier_sample_go(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.svg").write_text(name, "utf-8")
    assert list(replace_files(tmp_path / "new", tmp_path / "old")) == [tmp_path / "old" / "new.svg"]
    assert [path.name for path in (tmp_path / "old").iterdir()] == ["new.svg"]
