"""Redo the published experiment on wrong labels of images, and write its page: python -m tests.reproduction.images.

Labels of CIFAR-10 images are flipped (class s to 9 - s, as published), a network is trained on them, and the right
labels are brought into it by every method (Warnecke et al. 2023, section 6.3). All figures are of images that no
training used and no method was chosen by: seed 0 and half of the test images served for that. The data must lie beside
the repository; every network and every result is kept in a folder, and the same command goes on after an interruption.
"""

import argparse
import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

import altair as alt
import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from canaryaudit.image_plan import ImageInsertOptions
from canaryaudit.images.clock import work_seconds
from canaryaudit.images.network import as_input
from canaryaudit.images.reading import read_images
from canaryaudit.images.relabeling import Training, relabel_network
from canaryaudit.images.second_order import Correction
from canaryaudit.images.training import LoopConfig, fit, outputs
from canaryaudit.pipeline.images.training import fresh_network
from canaryaudit.privacy.audit import privacy_of
from canaryaudit.progress import NullReporter
from canaryaudit.records.images import ImageMethod, NetworkShape
from canaryaudit.report.charts.base import AFTER, BEFORE, INK, Chart, specification
from canaryaudit.report.formats.files import write_files
from canaryaudit.storage.files import atomic_write

PAGE = Path(__file__).parents[2] / "reports" / "paper"
DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "cifar10"
IMAGES, EPOCHS = 5_000, 16
JUDGES = 2_500
"""Images of the training parts that no training uses, to judge by, beside half of the test images."""
PUBLISHED_IMAGES = 50_000
FLIPS = (2_500, 5_000, 10_000)
"""As published, of all images; in proportion here."""
SEEDS = (1, 2, 3)
SHAPE = NetworkShape(height=32, width=32, channels=3, classes=10, blocks=(16, 32, 64), dense=128)
PRECISION = "bf16"


@dataclass(frozen=True, eq=False)
class Cell:
    """One seed's images, with the labels of some flipped.

    Attributes:
        images: Bytes, shape (N, H, W, C).
        labels: Right labels, shape (N,).
        flipped: Labels to train on, shape (N,).
        candidates: Rows for which a coin was tossed, in order.
        judges: Bytes of images to judge by.
        judge_labels: Their labels.
    """

    images: Tensor
    labels: Tensor
    flipped: Tensor
    candidates: Tensor
    judges: Tensor
    judge_labels: Tensor


class Source:
    """CIFAR-10 from the Parquet files."""

    @cached_property
    def parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Images and labels, of the training parts and of the test part."""
        read = [
            read_images(ImageInsertOptions(corpus=str(path), image="image", target="label"))
            for path in (*sorted(DATA.glob("train-*.parquet")), DATA / "test-00.parquet")
        ]
        pixels = [torch.from_numpy(own.pixels) for own in read]
        labels = [torch.tensor([int(label) for label in own.labels]) for own in read]
        return torch.cat(pixels[:-1]), torch.cat(labels[:-1]), pixels[-1], labels[-1]

    def cell(self, number: int, seed: int, flips: int) -> Cell:
        """Return one seed's images, with labels flipped by a coin for each of twice as many candidates."""
        images, labels, test, test_labels = self.parts
        order = torch.from_numpy(np.random.default_rng([17, seed]).permutation(len(labels)))
        rows, unused = order[:number], order[-JUDGES:]
        judge = np.random.default_rng(17).permutation(len(test_labels))[: len(test_labels) // 2]
        rng = np.random.default_rng([18, seed])
        candidates = torch.from_numpy(np.sort(rng.permutation(number)[: 2 * flips]))
        coins = torch.from_numpy(rng.integers(0, 2, 2 * flips).astype(bool))
        flipped = labels[rows].clone()
        flipped[candidates[coins]] = 9 - flipped[candidates[coins]]
        return Cell(
            images[rows],
            labels[rows],
            flipped,
            candidates,
            torch.cat((images[unused], test[judge])),
            torch.cat((labels[unused], test_labels[judge])),
        )


def trained(folder: Path, name: str, cell: Cell, labels: Tensor, seed: int) -> tuple[nn.Sequential, float]:
    """Return a network trained on some labels, and the processor time that it took; kept in the folder."""
    network, path = fresh_network(SHAPE, seed), folder / f"{name}.safetensors"
    if not path.exists():
        with work_seconds(torch.device("cpu")) as spent:
            fit(network, cell.images, labels, loop(seed), prepare=as_input)
        state = {key: value.contiguous() for key, value in network.state_dict().items()}
        atomic_write(path, save({**state, "seconds": torch.tensor(spent())}))
        print(f"{name}: {spent():.0f} s", flush=True)
    state = load_file(path)
    seconds = float(state.pop("seconds"))
    network.load_state_dict(state)
    return network.eval(), seconds


def loop(seed: int) -> LoopConfig:
    """Return how networks are trained."""
    return LoopConfig(EPOCHS, seed=seed, precision=PRECISION)


METHODS: tuple[tuple[ImageMethod, float | None], ...] = (
    ("first-order", None),
    ("second-order", None),
    ("second-order-dense", None),
    ("output-layer", None),
    ("dense-layers", None),
    ("fine-tune", 0.6),
    ("blocks", None),
    ("fine-tune", 2.9),
)
"""With the passes of fine-tuning that cost about as much as the update above it."""
EVERY: tuple[tuple[Any, float | None], ...] = (("before", None), *METHODS, ("retrain", None))
NAMES = tuple(f"{method}, {epochs:g} passes" if epochs else method for method, epochs in EVERY)
TARGETS = ((0.70, 0.04), (0.85, 0.20))
"""Share of the lost accuracy to restore, and share of the training's time."""
PUBLISHED = "22 % of the lost accuracy by first order at 3 % of the training's time, 32 % by second order at 7 %"


@dataclass(frozen=True)
class Line:
    """One model of one seed and number of flips.

    Attributes:
        flips: Labels to flip, of the published number of images.
        seed: The seed.
        method: What was done, with passes; ``before`` and ``retrain`` too.
        words: The same in a sentence.
        accuracy: On the images to judge by.
        restored: Share of the lost accuracy; 0 before and 1 in the retrained network.
        error: Its standard error from the number of images to judge by, which are the same for all three networks.
        flipped_right: Share of flipped rows that get their right label.
        kept_right: Share of the controls.
        auc: Of flipped labels against controls, with its interval.
        epsilon: One-run lower bound.
        cost: Processor time as a share of the training's.
    """

    flips: int
    seed: int
    method: str
    words: str
    accuracy: float
    restored: float
    error: float
    flipped_right: float
    kept_right: float
    auc: tuple[float, float, float]
    epsilon: float
    cost: float


class Judge:
    """Judges networks of one cell."""

    def __init__(self, cell: Cell, before: nn.Module, retrained: nn.Module) -> None:
        self.cell = cell
        self.before, self.retrained = self.right(before), self.right(retrained)

    def right(self, network: nn.Module) -> Tensor:
        """Return for which images to judge by a network is right, as numbers."""
        logits = outputs(network, self.cell.judges, prepare=as_input, precision=PRECISION)
        return (logits.argmax(1) == self.cell.judge_labels).double()

    def line(self, key: tuple[int, int], method: str, words: str, network: nn.Module, cost: float) -> Line:
        """Judge one network; ``key`` is flips and seed."""
        cell, right = self.cell, self.right(network)
        lost = float((self.retrained - self.before).mean())
        restored = float((right - self.before).mean()) / lost
        apart = (right - self.before) - restored * (self.retrained - self.before)
        rows = cell.candidates
        logits = outputs(network, cell.images[rows], prepare=as_input, precision=PRECISION)
        own, planted = cell.labels[rows], cell.flipped[rows] != cell.labels[rows]
        scores = logits.gather(1, 9 - own[:, None]) - logits.gather(1, own[:, None])
        privacy = privacy_of(scores[:, 0].tolist(), planted.tolist(), 1)
        hits = (logits.argmax(1) == own).double()
        return Line(
            *key,
            method,
            words,
            float(right.mean()),
            restored,
            float(apart.std()) / math.sqrt(len(apart)) / abs(lost),
            float(hits[planted].mean()),
            float(hits[~planted].mean()),
            (privacy.membership.auc, privacy.membership.auc_low, privacy.membership.auc_high),
            privacy.epsilon_low,
            cost,
        )


def measure_cell(folder: Path, cell: Cell, key: tuple[int, int], names: tuple[str, str]) -> list[Line]:
    """Return the lines of one seed and number of flips; kept in the folder."""
    path = folder / f"results-{names[1]}.json"
    done = stored_lines(path)
    (clean, whole), (before, seconds) = (
        trained(folder, name, cell, labels, key[1])
        for name, labels in zip(names, (cell.labels, cell.flipped), strict=True)
    )
    judge = Judge(cell, before, clean)
    correction = Correction(cell.images, cell.flipped, cell.labels, as_input, PRECISION, key[1])
    for (method, epochs), name in zip(EVERY, NAMES, strict=True):
        if name in {own.method for own in done}:
            continue
        if method in ("before", "retrain"):
            network, words, cost = (before, "", 0.0) if method == "before" else (clean, "", whole / seconds)
        else:
            updated = relabel_network(before, correction, method, Training(loop(key[1])), NullReporter(), epochs)
            network, words, cost = updated.module, updated.words, updated.seconds / seconds
        done.append(judge.line(key, name, words, network, cost))
        own = done[-1]
        print(f"{key} {name}: {own.accuracy:.4f}, restored {own.restored:.2f} at {own.cost:.3f}", flush=True)
        atomic_write(path, json.dumps([asdict(line) for line in done]))
    return done


# --- the page


def means(lines: Iterable[Line], method: str, flips: int) -> dict[str, Any]:
    """Return the figures of one method and number of flips over all seeds.

    What is restored is the gain of all seeds together over the loss of all: where a seed lost little, its own share
    says little.
    """
    every = [line for line in lines if line.flips == flips]
    own = [line for line in every if line.method == method]
    ends = {name: {line.seed: line.accuracy for line in every if line.method == name} for name in ("before", "retrain")}
    lost = {seed: ends["retrain"][seed] - ends["before"][seed] for seed in ends["before"]}
    total = sum(lost[line.seed] for line in own)
    return {
        "restored": sum(line.accuracy - ends["before"][line.seed] for line in own) / total,
        "range": (min(line.restored for line in own), max(line.restored for line in own)),
        "error": math.sqrt(sum((line.error * lost[line.seed]) ** 2 for line in own)) / total,
        **{
            name: fmean(getattr(line, name) for line in own)
            for name in ("accuracy", "flipped_right", "kept_right", "epsilon", "cost")
        },
        "costs": (min(line.cost for line in own), max(line.cost for line in own)),
        "auc": fmean(line.auc[0] for line in own),
        "auc_range": (min(line.auc[1] for line in own), max(line.auc[2] for line in own)),
    }


def page(lines: list[Line], number: int) -> str:
    """Return the page in Markdown."""
    blocks = [
        "# Wrong labels of images",
        f"CIFAR-10 (JPEG copies), {number:,} training images, a network of 6 convolutions and 2 dense layers "
        f"({sum(own.numel() for own in fresh_network(SHAPE, 0).parameters()):,} parameters), {EPOCHS} epochs. "
        "Labels are flipped from class s to 9 - s, as published, by a coin for each of twice as many candidates. "
        f"Accuracy on {JUDGES + 2_500:,} images that no training used and no method was chosen by. Restored: 0 % is "
        "the network with wrong labels, 100 % the retrained one of the same seed; the gain of all seeds over the loss "
        "of all. Cost: processor time as a share of the training's, one thread of a shared machine, "
        f"{PRECISION}. All else: means over seeds. Published: {PUBLISHED} (10,000 flips of 50,000 images, one seed).",
        "Redo it with `make reproduce-images`; networks and results are kept, and it goes on after an interruption.",
    ]
    for flips in sorted({line.flips for line in lines}):
        found = {own: means(lines, own, flips) for own in NAMES}
        seeds = sorted({line.seed for line in lines if line.flips == flips})
        blocks.append(
            f"## {flips:,} of 50,000 labels: {round(flips * number / PUBLISHED_IMAGES):,} of {number:,}, seeds "
            f"{', '.join(map(str, seeds))}"
        )
        rows = ["| Method | Accuracy | Restored | Seeds | Cost | Flipped right | Kept right | AUC | Epsilon |"]
        rows.append("| --- " * 9 + "|")
        for name, own in found.items():
            low, high = own["range"]
            rows.append(
                f"| {name} | {own['accuracy']:.4f} | {round(100 * own['restored'])} ± {round(100 * own['error'])} % | "
                f"{round(100 * low)} to {round(100 * high)} % | {100 * own['cost']:.1f} % "
                f"({100 * own['costs'][0]:.1f} to {100 * own['costs'][1]:.1f}) | "
                f"{100 * own['flipped_right']:.1f} % | {100 * own['kept_right']:.1f} % | {own['auc']:.3f} "
                f"({own['auc_range'][0]:.3f} to {own['auc_range'][1]:.3f}) | {own['epsilon']:.2f} |"
            )
        blocks.append("\n".join(rows))
        blocks.append("\n".join(f"- {sentence}" for sentence in verdicts(found)))
    blocks.append(
        "± is the standard error from the number of images to judge by, not the spread over seeds. The AUC is that of "
        "flipped labels against controls, with the outer ends of the seeds' 95 % intervals; epsilon the mean of the "
        "one-run lower bounds. ![Accuracy restored against cost](images.svg)"
    )
    return "\n\n".join(blocks) + "\n"


def verdicts(found: dict[str, dict[str, Any]]) -> list[str]:
    """Return by how much each target is met or missed."""
    updates = {name: own for name, own in found.items() if name not in ("before", "retrain")}
    sentences = []
    default = found["dense-layers"]
    for share, cost in TARGETS:
        within = {
            name: own for name, own in updates.items() if own["cost"] <= cost and not name.startswith("fine-tune")
        }
        words = f"{round(100 * share)} % at {round(100 * cost)} % of the cost: "
        name, own = max(
            within.items(), key=lambda pair: pair[1]["restored"], default=("", {"restored": 0.0, "cost": 0.0})
        )
        gap = 100 * (own["restored"] - share)
        words += f"{'met' if gap >= 0 else 'missed'} by {abs(gap):.0f} points"
        at = f"{round(100 * own['restored'])} % at {100 * own['cost']:.1f} %"
        words += f" ({name}: {at})" if name else " (no update is so cheap)"
        if cost < default["cost"] < 2 * cost:
            words += (
                f"; dense-layers, just above: {round(100 * default['restored'])} % at {100 * default['cost']:.1f} %"
            )
        sentences.append(f"{words}.")
    for update, baseline in (("dense-layers", "fine-tune, 0.6 passes"), ("blocks", "fine-tune, 2.9 passes")):
        one, other = found[update], found[baseline]
        gap = 100 * (one["restored"] - other["restored"])
        sentences.append(
            f"{update} against fine-tuning: {'above' if gap >= 0 else 'below'} by {abs(gap):.0f} points, at "
            f"{100 * one['cost']:.1f} % against {100 * other['cost']:.1f} % of the training's time."
        )
    return sentences


def picture(lines: list[Line]) -> Chart:
    """Draw what every method restores against its cost, for each number of flips."""
    rows = []
    for method in NAMES[1:-1]:
        for flips in sorted({line.flips for line in lines}):
            own = means(lines, method, flips)
            rows.append(
                {
                    "method": method,
                    "flips": f"{flips:,} flips",
                    "restored": 100 * own["restored"],
                    "cost": 100 * own["cost"],
                    "kind": "fine-tuning" if method.startswith("fine-tune") else "update",
                }
            )
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("cost:Q", title="cost, % of the training's time", scale=alt.Scale(type="log", domain=[1, 60])),
        y=alt.Y("restored:Q", title="lost accuracy restored, %"),
    )
    colors = alt.Scale(domain=["update", "fine-tuning"], range=[AFTER, BEFORE])
    dots = base.mark_point(filled=True, size=70).encode(color=alt.Color("kind:N", scale=colors, title=None))
    names = base.mark_text(align="left", dx=7, fontSize=9, color=INK).encode(text="method:N")
    panels = alt.layer(dots, names).properties(width=300, height=240).facet("flips:N", data=alt.Data(values=rows))
    return Chart("images", "Accuracy restored against cost", "As in the tables.", specification(panels))


def finished(folder: Path, name: str) -> list[Line]:
    """Return the lines of one seed and number of flips; none if they are not complete."""
    path = folder / f"results-{name}.json"
    lines = stored_lines(path)
    return lines if {line.method for line in lines} == {*NAMES} else []


def stored_lines(path: Path) -> list[Line]:
    """Return the lines that were written so far."""
    read = json.loads(path.read_text()) if path.exists() else []
    return [Line(**{**own, "auc": tuple(own["auc"])}) for own in read]


def main(arguments: list[str] | None = None) -> None:
    """Train, update, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=IMAGES, help="images to train on")
    parser.add_argument("--work", type=Path, default=Path("build/images"), help="folder of networks and results")
    parser.add_argument("--flips", type=int, nargs="*", default=FLIPS[::-1], help="which numbers of flips to run")
    options = parser.parse_args(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    source, lines = Source(), list[Line]()
    for flips in FLIPS[::-1]:
        for seed in SEEDS:
            number = round(flips * options.images / PUBLISHED_IMAGES)
            names = (f"trained-{options.images}-{seed}-0", f"trained-{options.images}-{seed}-{number}")
            done = finished(options.work, names[1])
            if not done and flips in options.flips:
                cell = source.cell(options.images, seed, number)
                done = measure_cell(options.work, cell, (flips, seed), names)
            lines += done
    chart = picture(lines)
    write_files(PAGE, {"images.md": page(lines, options.images), chart.file_name: chart.svg()})


if __name__ == "__main__":
    main()
