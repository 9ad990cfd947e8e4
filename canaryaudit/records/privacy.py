"""What a measurement says about membership and privacy loss, where canaries were inserted by independent coins."""

from canaryaudit.records.base import Record


class Membership(Record):
    """How well the canaries' log-perplexities tell inserted ones from those kept out."""

    auc: float
    """Probability that an inserted canary is less surprising to the model than one kept out, ties halved."""
    auc_low: float
    """Lower end of its 95 % interval (Newcombe 2006, method 5)."""
    auc_high: float
    false_positive_rate: float
    """Largest share of kept-out canaries that the threshold may call inserted."""
    true_positive_rate: float
    """Share of inserted canaries beyond the strictest threshold of that rate."""
    tpr_low: float
    """Lower end of its 95 % Clopper-Pearson interval, for that threshold."""
    tpr_high: float


class Privacy(Record):
    """A lower bound on the privacy loss of the training, from one run (Steinke, Nasr & Jagielski 2023)."""

    candidates: int
    """Canaries with a coin, inserted or kept out."""
    inserted: int
    copies: int
    """How often an inserted canary occurs: the bound is one for so many copies of a text, not for one."""
    membership: Membership
    guesses: int
    """Coins that were guessed: the sixth with the lowest and that with the highest log-perplexity."""
    correct: int
    delta: float
    epsilon_low: float
    """With 95 % confidence the training is not (epsilon, delta)-differentially private for any smaller epsilon."""
    epsilon_ceiling: float
    """The bound if every guess were right: an audit of so many canaries can show no more."""
