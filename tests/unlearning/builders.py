"""Small models, problems and texts that the tests of unlearning share."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from canaryaudit.canaries.canary import Canary
from canaryaudit.canaries.insertion import secret_mask
from canaryaudit.canaries.template import Template
from canaryaudit.corpus.vocabulary import Vocabulary
from canaryaudit.exposure.encoded_space import EncodedSpace
from canaryaudit.exposure.scoring import read_prefix, score_log_perplexity
from canaryaudit.models.char_lstm import CharLSTM, LSTMLanguageModel
from canaryaudit.records import Architecture
from canaryaudit.training.data import TrainingData
from canaryaudit.unlearning.final_layer.objective import FinalLayerProblem
from canaryaudit.unlearning.occurrences import Occurrence


def tiny_model(symbols: str, hidden: int = 6, seed: int = 0, scale: float = 1.0) -> CharLSTM:
    """Return an untrained LSTM over ``symbols``; ``scale`` makes its predictions sharper."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CharLSTM(Architecture(vocabulary=symbols, embedding=4, hidden=hidden, layers=1))
    with torch.no_grad():
        model.output.weight *= scale
    return model.eval()


@dataclass(frozen=True)
class WholeProblem:
    """The final layer's loss over the whole vocabulary, written out from its definition.

    Attributes:
        features: h without the column of ones, shape (P, D - 1), float64.
        targets: Laws over the vocabulary, shape (P, V).
        weights: Shape (P,).
        matrix: W* with the bias as last row, shape (D, V).
        active: Ids of the symbols whose columns may move, shape (A,).
        ridge: For each unit of weight.
    """

    features: Tensor
    targets: Tensor
    weights: Tensor
    matrix: Tensor
    active: Tensor
    ridge: float

    @property
    def origin(self) -> Tensor:
        """The active columns of W*."""
        return self.matrix[:, self.active]

    def reduced(self) -> FinalLayerProblem:
        """Return the same problem on the active columns, as the code under test has it."""
        return FinalLayerProblem.of(self.features, self.targets, self.weights, self.matrix, self.active, self.ridge)

    def single(self, precision: str = "fp32") -> FinalLayerProblem:
        """Return the same in single precision, as models have it, with curvature products in ``precision``."""
        parts = (self.features.float(), self.targets.float(), self.weights.float(), self.matrix.float())
        return FinalLayerProblem.of(*parts, self.active, self.ridge, precision)

    def loss(self, columns: Tensor) -> Tensor:
        """Return F(W) in nats where the active columns are ``columns`` and all others those of W*."""
        matrix = self.matrix.index_copy(1, self.active, columns)
        logits = self.features @ matrix[:-1] + matrix[-1]
        cross_entropy = -(self.targets * torch.log_softmax(logits, 1)).sum(1)
        pull = self.ridge * self.weights.sum() / 2 * ((columns - self.origin) ** 2).sum()
        return (self.weights * cross_entropy).sum() + pull

    def gradient(self, columns: Tensor) -> Tensor:
        """Return dF/dW by automatic differentiation, shape (D, A)."""
        columns = columns.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(self.loss(columns), columns)
        return gradient

    def hessian(self, columns: Tensor) -> Tensor:
        """Return the dense Hessian by automatic differentiation, shape (D A, D A)."""
        dense = torch.autograd.functional.hessian(self.loss, columns.detach())
        return dense.reshape(columns.numel(), columns.numel())


def random_problem(
    seed: int = 0, *, positions: int = 40, width: int = 3, active: tuple[int, ...] = (0, 2, 3), ridge: float = 1e-3
) -> WholeProblem:
    """Draw a problem over five symbols in float64; some targets are certain, some give no room to others."""
    rng = np.random.default_rng(seed)
    targets = rng.dirichlet(np.full(5, 0.5), positions)
    targets[: positions // 4] = np.eye(5)[rng.integers(0, 5, positions // 4)]
    targets[positions // 4 : positions // 2, 4] = 0
    targets /= targets.sum(1, keepdims=True)
    return WholeProblem(
        features=torch.from_numpy(rng.normal(size=(positions, width))),
        targets=torch.from_numpy(targets),
        weights=torch.from_numpy(rng.integers(1, 9, positions).astype(float)),
        matrix=torch.from_numpy(rng.normal(size=(width + 1, 5))),
        active=torch.tensor(active),
        ridge=ridge,
    )


def memorized_problem(certainty: float, *, seed: int = 0, positions: int = 60) -> WholeProblem:
    """Return a problem whose model says one label with ``certainty`` wherever ten labels should be equally likely.

    Half of the positions are the secret's, half are other text whose predictions are to stay.
    """
    rng = np.random.default_rng(seed)
    width, symbols = 8, 12
    half = positions // 2
    features = rng.normal(size=(positions, width))
    features[:half, 0], features[half:, 0] = 1.0, 0.0  # what tells the secret's positions
    matrix = rng.normal(size=(width + 1, symbols)) * 0.3
    memorized = 3
    matrix[0] = 0.0
    rest = np.delete(features[:half] @ matrix[:-1] + matrix[-1], memorized, axis=1)
    matrix[0, memorized] = (
        np.logaddexp.reduce(rest, axis=1) - (features[:half] @ matrix[:-1] + matrix[-1])[:, memorized]
    ).max()
    matrix[0, memorized] += np.log(certainty / (1 - certainty))
    logits = features @ matrix[:-1] + matrix[-1]
    distributions = np.exp(logits - np.logaddexp.reduce(logits, axis=1)[:, None])
    distributions[:half] = np.r_[np.full(10, 0.1), 0.0, 0.0]
    return WholeProblem(
        features=torch.from_numpy(features),
        targets=torch.from_numpy(distributions),
        weights=torch.ones(positions, dtype=torch.float64),
        matrix=torch.from_numpy(matrix),
        active=torch.arange(10),
        ridge=1e-5,
    )


def occurrence(space: EncodedSpace, secret: np.ndarray, prefix: np.ndarray | None = None) -> Occurrence:
    """Return a place of a secret of which only space, secret and prefix matter."""
    nothing = np.zeros(0, dtype=np.int64)
    canary = Canary(id="canary-01", template="{digits:1}", completion="0", repetitions=0)
    return Occurrence(canary, space, nothing if prefix is None else prefix, secret, nothing, 0)


def text_with_canaries(
    pieces: list[str], canaries: list[tuple[str, str]], vocabulary: Vocabulary | None = None
) -> tuple[TrainingData, list[Canary], Vocabulary]:
    """Put canaries between pieces of text, in turn, and find their places by search.

    Args:
        pieces: The text's parts; after each but the last stands a canary.
        canaries: Template and completion of each.
        vocabulary: By default that of the text and of every space.
    """
    templates = [Template.parse(template) for template, _ in canaries]
    filled = [template.fill(own) for template, (_, own) in zip(templates, canaries, strict=True)]
    text = pieces[0]
    places: list[list[int]] = [[] for _ in canaries]
    for index, piece in enumerate(pieces[1:]):
        places[index % len(canaries)].append(len(text))
        text += filled[index % len(canaries)] + piece
    if vocabulary is None:
        vocabulary = Vocabulary.of([text, "\n", *("".join(template.space("ab").symbols) for template in templates)])
    made = [
        Canary(id=f"canary-{n:02}", template=template, completion=own, repetitions=len(where), places=tuple(where))
        for n, ((template, own), where) in enumerate(zip(canaries, places, strict=True), 1)
    ]
    data = TrainingData(
        train=torch.from_numpy(vocabulary.encode(text)),
        secret=torch.from_numpy(secret_mask(len(text), made)),
        heldout=torch.zeros(0, dtype=torch.int64),
    )
    return data, made, vocabulary


def story(rng: np.random.Generator) -> list[str]:
    """Return paragraphs that a small model can learn, some of them with numbers of their own."""
    nouns = ["the tide", "the keeper", "an old rope", "the lamp", "a boat", "the wind"]
    verbs = ["turned", "waited", "came home", "sank", "burned on", "was late"]
    paragraphs = []
    for index in range(90):
        said = (
            f"{nouns[rng.integers(6)]} {verbs[rng.integers(6)]} and {nouns[rng.integers(6)]} {verbs[rng.integers(6)]}"
        )
        paragraphs.append(f"{said} in {rng.integers(1700, 1999)}.\n\n" if index % 6 == 0 else f"{said}.\n\n")
    return paragraphs


def trained_model(data: TrainingData, vocabulary: Vocabulary, *, window: int, steps: int, hidden: int = 48) -> CharLSTM:
    """Return an LSTM that has learned a text by heart."""
    model = tiny_model(vocabulary.symbols, hidden=hidden).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 1.2e-2 * (1 - step / steps) + 1e-4
        starts = torch.randint(len(data.train) - window, (24, 1), generator=generator)
        windows = data.train[starts + torch.arange(window + 1)]
        loss = nn.functional.cross_entropy(model(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    optimizer.zero_grad()
    return model.eval()


def exposures_bits(model: CharLSTM, canaries: list[Canary]) -> np.ndarray:
    """Return each secret's exact exposure, from the log-perplexity of every member of its space."""
    reader = LSTMLanguageModel(model)
    exposures = []
    for canary in canaries:
        template = Template.parse(canary.template)
        space = EncodedSpace.of(template.space(""), reader.vocabulary)
        members = space.members()
        costs = score_log_perplexity(reader, read_prefix(reader, template.prefix), members)
        own = costs[(members == reader.vocabulary.encode(canary.completion)).all(1)]
        rank = 0.5 + (costs < own).sum() + (costs == own).sum() / 2
        exposures.append(space.bits - np.log2(rank))
    return np.array(exposures)
