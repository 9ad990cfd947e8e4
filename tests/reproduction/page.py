"""reports/paper: README.md and results.json.xz, from the results that are there and from nothing else."""

from pathlib import Path

from canaryaudit.storage.files import atomic_write
from tests.reproduction import grid_section, other_sections, worst_section
from tests.reproduction.results import Results, write
from tests.reproduction.settings import PUBLISHED_WINDOW, REPLACEMENT

RESULTS = "results.json.xz"
"""Beside the page: all results that it is made from."""

TITLE = """\
# The published experiment, redone

Warnecke et al., *Machine Unlearning of Features and Labels* (NDSS 2023), remove a memorized number from a character
model by closed-form updates, and report exposures near zero at a small part of retraining's cost. Here the section on
unintended memorization is done again, with every baseline in the same training loop and every result measured twice:
against references taken once from the *original* model, as the method's public code does by default, and against fresh
references from the model that is being judged. Everything on this page is made by `make reproduce` from
[results.json.xz](results.json.xz).
"""

HOW = f"""\
**Stale exposure** follows the public code: reference costs are taken once, from the original model; a
skew-normal distribution F is fitted to them; exposure is −log2 F(cost of the secret under the updated model),
where each of the secret's characters is read after the characters that *the model itself* finds likeliest,
not after the secret's own. Two things differ: the references are uniform in the secret's own format (all ten
digits), where the code takes all characters of the text or, by its option, the digits that occur in the
secret; and −log2 F is capped at the size of the space in bits, where the code's F underflows to infinite
exposure. *Stale, teacher-forced* is the same with the secret's own characters read. **Fresh exposure** is
this tool's: log2 |R| − log2 rank among all strings of the format under the model judged, exact where the rank
was found, else by importance sampling, with its 95 % interval.

**Windows.** In the published scheme a window is {PUBLISHED_WINDOW} characters and one label, so that a secret
of length L touches {PUBLISHED_WINDOW} + L of them at each occurrence; here a window is 100 characters with
100 labels, and Z holds every window that the secret touches, as feature or label. Both numbers are given.

**Canaries.** Each model holds four secrets of 5, 10, 15 and 20 random digits, each after a prefix of its own:
behind one shared prefix two secrets would compete for the same next character, and unlearning one would push
the other up. Retraining, fine-tuning and SISA forget all four at once, as what they cost does not depend on
the number; the closed forms forget one at a time, each from the trained model, and are judged on that one.

**Methods.** *First order* and *second order, text* put the fixed text `{REPLACEMENT.removeprefix("text:")}`,
repeated and cut to length, in the secret's place (`unlearn --method first-order`, with the step searched
under the fidelity limit, and `--method second-order`, both with `--replacement`); the latter updates the
final layer, where its minimum is found exactly, so that what it leaves is the replacement's doing and not a
poor solution's. *The default* is `canaryaudit unlearn` without options. Retraining, fine-tuning and SISA are
`--method retrain`, `fine-tune` and `sisa`. A result that would lose more than 0.3 points of accuracy is
refused, but for SISA (`--max-fidelity-drop 1`), whose loss is to be seen.

**Chosen where?** The default's settings were chosen on some of these models: the telephone number's of seed 0, the
one with 30 repetitions, the ten canaries' and the 500 canaries'. Those with 6, 15 and 60 repetitions and seeds 1 and
2 had no part in it, nor had this page's attacks.

**Seconds** are those of the update or the training alone, on one core: wall-clock seconds times the share of
the core that the process had. Speed-up is retraining's seconds, in the same run and by the same loop, over
the method's own.
"""


def render(results: Results) -> str:
    """Return the page."""
    parts = [
        TITLE,
        *worst_section.render(results),
        *grid_section.render(results),
        *other_sections.render(results),
        "## How it was done\n",
        HOW,
    ]
    return "\n".join([*parts, _provenance(results)])


def write_page(results: Results, directory: Path) -> list[Path]:
    """Write the page and its data; return their paths."""
    page, data = directory / "README.md", directory / RESULTS
    write(data, results)
    atomic_write(page, render(results))
    return [page, data]


def _provenance(results: Results) -> str:
    texts = {(run.corpus, run.sha256) for run in results.runs if run.stage != "growth"}
    lines = [f"**Text.** {name}, SHA-256 `{sha256}`." for name, sha256 in sorted(texts)]
    if any(run.stage == "growth" for run in results.runs):
        lines.append(
            "For the growth of requests its blank lines are left out, so that canaries may stand between any two lines."
        )
    for machine, versions in {
        (str(run.machine), str(run.versions)): (run.machine, run.versions) for run in results.runs
    }.values():
        facts = ", ".join(f"{name} {value}" for name, value in machine.items())
        packages = ", ".join(f"{name} {value}" for name, value in versions.items())
        lines.append(f"**Machine.** {facts}; {packages}.")
    seeds = ", ".join(f"`{run.run}` {run.seed} ({run.epochs} epochs)" for run in results.runs)
    lines.append(f"**Seeds** of insertion and training, by run: {seeds}. Measurements and updates have seed 0.")
    commits = sorted({case.made["commit"][:7] for case in results.cases if case.made.get("commit")})
    lines.append(f"**Commits** of the code at the measurements: {', '.join(commits) or 'unknown'}.")
    lines.append(
        "**Commands.** `make reproduce CORPUS=alice.txt` makes everything (a known text is cut as its card says; "
        "without CORPUS, the embedded one is used), and "
        "`python -m tests.reproduction grid --repetitions 6 --methods retrain,default` a part. A killed run goes on. "
        "The runs' first commands:"
    )
    lines.append("\n".join(["```", *(run.command for run in results.runs), "```"]))
    return "\n\n".join(lines) + "\n"
