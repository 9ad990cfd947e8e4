"""tables.json: what requests to a linear model did, beside other ways to the same data."""

from canaryaudit.report.judgment import Figure, GateStatus, Number, Part

TABLES_VERSION = 1
SAME_AUC = 0.005
"""Difference of two AUCs of the same rows that says nothing."""


class MethodLine(Part):
    """One way to the data after the requests."""

    name: str
    residual: Number
    """Norm of the gradient on the data after the requests."""
    mean_loss_difference: Number
    """Mean absolute difference of a training row's loss to the retrained model's, in the loss's unit."""
    max_loss_difference: Number
    accuracy: Number
    f1: Number
    """F1, averaged over both classes."""
    seconds: Number
    """Processor time of the requests."""
    preparation_seconds: Number
    """Processor time spent once, before any request."""
    speedup: Figure
    """Time of retraining by the best solver over ``seconds``; None if it took no time."""
    note: str


class CertificateFigures(Part):
    """The certificate, and the model published under it."""

    epsilon: Number
    delta: Number
    releases: int
    sigma: Number
    """Standard deviation of the noise on every coefficient."""
    distance: Number
    """Largest distance to a retrained model."""
    strong_convexity: Number
    rounding: Number
    """Worst-case error of the residual by rounding."""
    accuracy: Number
    """Of a model published with this noise, mean over draws."""
    f1: Number


class PublishedScheme(Part):
    """What the published scheme gives for the same epsilon and delta; its certificate is not valid."""

    residual: Number
    """Left by one step as published."""
    sigma: Number
    """Noise that it puts into the objective."""
    accuracy: Number
    f1: Number


class DisclosureLine(Part):
    """How well the remaining columns predict a removed one, cross-validated."""

    column: str
    measure: str
    value: Figure
    telling: bool
    """Whether the rest gives the column away."""


class MembershipFigures(Part):
    """Can deleted rows be told from rows that were never seen, by their loss? 0.5: no."""

    auc: Number
    low: Number
    high: Number
    """95 % interval."""
    retrained: Figure
    """The AUC of the same rows in the retrained model, which never saw them; None if it was not asked for."""
    deleted: int
    unseen: int

    @property
    def by_selection(self) -> bool:
        """Whether the rows differ in the retrained model just as much: by which rows they are, not by being known."""
        return self.retrained is not None and abs(self.auc - self.retrained) < SAME_AUC

    @property
    def told(self) -> bool:
        """Whether deleted rows are told from others because the model knows them."""
        return self.low > 0.5 and not self.by_selection


class LossPoint(Part):
    """One training row: how the requests changed its loss."""

    retrained: Number
    """Loss in the retrained model minus loss before the requests."""
    updated: Number
    """Loss after the requests minus loss before."""


class CoinFigures(Part):
    """Whether a model tells which canaries were planted, before and after the requests.

    Each tuple is: AUC and its 95 % interval's ends, the lower bound on epsilon, canaries planted, and candidates.
    """

    what: str
    """Flipped labels, or planted values."""
    before: tuple[Number, Number, Number, Number, int, int]
    after: tuple[Number, Number, Number, Number, int, int]


class ResultLine(Part):
    """One unlearning of the run."""

    name: str
    origin: str
    """Model that it started from."""
    words: str
    """What it did."""
    path: str
    """Steps with the stored inverse, conjugate gradients, exact Newton steps, or a fit from nothing."""
    update_work: Number
    """Estimated work of an update, in multiplications."""
    retraining_work: Number
    """Estimated work of a fit from nothing; the smaller one decided."""
    residual: Number
    """Computed anew when it was measured."""
    max_loss_difference: Number
    """Largest difference of a row's loss to a model fitted from nothing."""
    accuracy: Number
    """On the held-out rows, or else the training rows."""
    seconds: Number
    retraining_seconds: Number


class TableGate(Part):
    """Whether a pipeline passes."""

    fail_residual: Number
    """Largest residual allowed."""
    status: GateStatus
    """``passed`` only if all records are verified and no residual is larger."""
    reasons: tuple[str, ...]
    doubts: tuple[str, ...]

    @property
    def remarks(self) -> tuple[str, ...]:
        """Why it did not pass."""
        return self.reasons + self.doubts


class ReleaseFigures(Part):
    """What was published of a run, under one plan."""

    epsilon: Number
    delta: Number
    made: int
    planned: int


class RunFigures(Part):
    """What a run directory adds to the figures of one model."""

    name: str
    table: str
    target: str
    result: str
    """The unlearning that the rest of the report is about."""
    results: tuple[ResultLine, ...]
    """All unlearnings, in order."""
    coins: tuple[CoinFigures, ...]
    releases: ReleaseFigures | None
    """None if nothing was published with ``canaryaudit publish``."""
    gate: TableGate | None
    faults: tuple[str, ...]
    """Why the run's records are not to be relied on; empty if they are as they were written."""
    signed: bool
    """Whether a signature was checked."""
    revealed: bool
    """Whether names that may be words of the data are shown."""
    versions: tuple[str, ...]


class TablesSummary(Part):
    """tables.json."""

    schema_version: int = TABLES_VERSION
    estimator: str
    loss: str
    """Name of the loss; in nats if it is logistic."""
    rows: int
    """Training rows before the requests."""
    columns: int
    requests: tuple[str, ...]
    """What each request did, in order."""
    removed: tuple[str, ...]
    """Names of removed columns."""
    residual: Number
    tolerance: Number
    path: str
    """What the last request needed: stored inverse, conjugate gradients or exact Newton."""
    preparation_seconds: Number
    evaluated_on: str
    """``test rows`` or ``training rows``."""
    majority_accuracy: Number
    """Of the constant classifier, which a large noise leaves."""
    majority_f1: Number
    methods: tuple[MethodLine, ...]
    """The update first, then the others."""
    certificate: CertificateFigures | None
    refused: str
    """Why there is no certificate; empty if there is one or none was asked for."""
    published: PublishedScheme | None
    disclosures: tuple[DisclosureLine, ...]
    membership: MembershipFigures | None
    warnings: tuple[str, ...]
    limits: tuple[str, ...]
    points: tuple[LossPoint, ...]
    """A sample of training rows."""
    run: RunFigures | None = None
    """Of the run directory, if there is one."""

    @property
    def gate(self) -> TableGate | None:
        """Whether a pipeline passes; None without a gate, or a run."""
        return self.run.gate if self.run else None

    @property
    def update(self) -> MethodLine:
        """The update's line."""
        return self.methods[0]

    @property
    def retrained(self) -> MethodLine | None:
        """The retrained model's line; None if it was not asked for."""
        return next((line for line in self.methods if line.name == "retrain"), None)

    @property
    def headline(self) -> str:
        """The result in one sentence."""
        return (
            "The updated model is the retrained one, within the tolerance."
            if self.residual <= self.tolerance
            else "The updated model is not the retrained one: its residual is above the tolerance."
        )
