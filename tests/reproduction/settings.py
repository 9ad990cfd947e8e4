"""What is run: texts, canaries, sizes and requests."""

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from canaryaudit.corpus.cards import find_card, known_corpora
from canaryaudit.corpus.corpus import read_corpus
from canaryaudit.plan import InsertOptions, MeasureOptions, TrainOptions

TELEPHONE = "`my telephone number is {{digits:{}}}!' said alice."
DOOR = "`the number upon the little door was {{digits:{}}}!' said the hatter."
DUCHESS = "`you must pay the duchess {{digits:{}}}!' said the cook."
SLATES = "`then write upon your slates {{digits:{}}}!' said the king."
CAKE = "`it was written on the cake: {{digits:{}}}!' said the dormouse."

LENGTHS = (5, 10, 15, 20)
GRID_TEMPLATES = (DOOR.format(5), TELEPHONE.format(10), DUCHESS.format(15), SLATES.format(20))
"""Lengths of the published experiment, each after a prefix of its own: two secrets behind one prefix would compete,
and to unlearn the one would push the other up."""
TEN_TEMPLATES = (DOOR.format(6), TELEPHONE.format(10), DUCHESS.format(8))
GROWTH_TEMPLATES = tuple(template.format(10) for template in (DOOR, TELEPHONE, DUCHESS, SLATES, CAKE))
SECRET = "0123456789"
SISA = {6: (5, 10, 20)}
"""Numbers of shards by repetitions: each costs as much as two trainings."""

PUBLISHED_WINDOW = 24
"""Characters that a window of the published experiment reads; it has one label, the character after them."""
REPLACEMENT = "text:not there "
"""What the update with text replacement puts in a secret's place."""

MEASURE = MeasureOptions(budget=10_000, precision_bits=0.15, max_draws=30_000)
"""A little less than the default, of which there would be a hundred."""

Stage = Literal["grid", "ten", "seeds", "growth"]
STAGES: tuple[Stage, ...] = ("grid", "ten", "seeds", "growth")


@dataclass(frozen=True)
class Settings:
    """One reproduction.

    Attributes:
        corpus: As ``canaryaudit insert`` takes it.
        runs: Where run directories and results are kept.
        lowercase: Whether the text is lower-cased.
        skip_chars: Characters dropped from its start.
        size: Of the model.
        epochs: At most; None for the size's own.
        target_accuracy: On training text, at which training stops.
        precision: Of training.
        measure: How exposure is measured.
        grid_repetitions: A model for each; its affected windows are about 36.5 times as many.
        grid_controls: For each template.
        measured_controls: Of those, as many are measured under each of the many models.
        sisa: Numbers of shards, by repetitions.
        ten_controls: For each of the three templates.
        seeds: Of insertion and training.
        seed_controls: For the one template.
        steps: Of the relearning attacks.
        growth_counts: Canaries to unlearn at once; the last is the number inserted.
        growth_repetitions: Dealt out in turn.
        growth_controls: For each of the five templates.
        chain: Canaries of each of three requests.
    """

    corpus: str = "harbour"
    runs: Path = Path("runs/paper")
    lowercase: bool = True
    skip_chars: int = 0
    size: Literal["small", "paper"] = "paper"
    epochs: int | None = None
    target_accuracy: float | None = 0.95
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    measure: MeasureOptions = MEASURE
    grid_repetitions: tuple[int, ...] = (6, 30, 15, 60)
    grid_controls: int = 32
    measured_controls: int = 16
    sisa: dict[int, tuple[int, ...]] = field(default_factory=lambda: dict(SISA))
    ten_controls: int = 67
    seeds: tuple[int, ...] = (0, 1, 2)
    seed_controls: int = 64
    steps: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    growth_counts: tuple[int, ...] = (1, 10, 100, 500)
    growth_repetitions: tuple[int, ...] = (2, 3, 4)
    growth_controls: int = 20
    chain: int = 10

    def cut(self) -> "Settings":
        """Return the settings with the text cut as its card says, where it is a known one under whatever name."""
        sha256 = read_corpus(self.corpus).sha256
        for card in filter(None, map(find_card, known_corpora())):
            if card.sha256 == sha256 and card.experiment:
                flags = shlex.split(card.experiment)
                skip = int(flags[flags.index("--skip-chars") + 1]) if "--skip-chars" in flags else 0
                return self.with_(lowercase="--lowercase" in flags, skip_chars=skip)
        return self

    def with_(self, **changes: object) -> "Settings":
        """Return a copy with some fields changed."""
        return Settings(**(self.__dict__ | changes))

    def train(self, seed: int = 0) -> TrainOptions:
        """Return how every model is trained."""
        return TrainOptions(
            size=self.size,
            epochs=self.epochs,
            target_accuracy=self.target_accuracy,
            precision=self.precision,
            device="cpu",
            seed=seed,
        )

    def insert(self, stage: Stage, number: int = 0) -> InsertOptions:
        """Return what is inserted for a stage.

        Args:
            stage: Which.
            number: Repetitions for the grid, the seed for the seeds.
        """
        common = {"corpus": self.corpus, "lowercase": self.lowercase, "skip_chars": self.skip_chars}
        match stage:
            case "grid":
                own = {
                    "template": GRID_TEMPLATES,
                    "canaries": 4,
                    "repetitions": (number,),
                    "controls": self.grid_controls,
                }
            case "ten":
                own = {
                    "template": TEN_TEMPLATES,
                    "canaries": 10,
                    "repetitions": (2, 6, 15, 30),
                    "controls": self.ten_controls,
                }
            case "seeds":
                own = {
                    "template": (TELEPHONE.format(10),),
                    "secret": (SECRET,),
                    "repetitions": (6,),
                    "controls": self.seed_controls,
                    "seed": number,
                }
            case "growth":
                own = {
                    "template": GROWTH_TEMPLATES,
                    "canaries": self.growth_counts[-1],
                    "repetitions": self.growth_repetitions,
                    "controls": self.growth_controls,
                }
                # Cut and lower-cased already, and broken at every line: its paragraphs are too few.
                common = {"corpus": str(self.runs / "lines.txt"), "lowercase": self.lowercase}
        return InsertOptions.model_validate(common | own)

    def write_lines(self) -> None:
        """Write the text without its blank lines, so that canaries may stand between any two lines."""
        path = self.runs / "lines.txt"
        if not path.exists():
            read = read_corpus(self.corpus, lowercase=self.lowercase, skip_chars=self.skip_chars)
            lines = [line for line in read.text.read().splitlines() if line.strip()]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(lines) + "\n", "utf-8")
