"""The words of the report, each defined in one sentence: the page links every figure to its definition."""

from canaryaudit.report.verdicts import NEVER_SEEN_BITS

DEFINITIONS = {
    "exposure": (
        "Exposure",
        "how highly the model ranks a secret among all strings of the same format, in bits: each bit halves the "
        "guesses that an attacker needs, and 10 bits divide them by about a thousand.",
    ),
    "space": (
        "Space",
        "all strings of the same format as a secret; its size in bits is the largest exposure that a secret can have, "
        "and other canaries, which may rank higher still, are not counted.",
    ),
    "interval": (
        "Interval",
        "the range, printed below a figure, that contains the true value with a probability of 95 %.",
    ),
    "chance": (
        "Chance",
        f"of the secrets that a model never saw, 95 % have an exposure of at most {NEVER_SEEN_BITS:.2f} bits; charts "
        "show this range as a gray band.",
    ),
    "canary": (
        "Canary",
        "a secret that was inserted into the training text, or located there, and whose exposure is measured.",
    ),
    "repetitions": ("Repetitions", "how often a canary occurs in the training text."),
    "control": (
        "Control",
        "a secret of the same format that the model never saw: if the measurement is right, controls have a mean "
        "exposure of 1.44 bits.",
    ),
    "probe": (
        "Probe",
        "a way to ask for a secret: with the template's prefix, or with other text before it, or with part of the "
        "secret given.",
    ),
    "worst-case": (
        "Worst case",
        "the exposure under the probe that exposes a canary most, where the probes of a family share a weight: "
        "as the largest of many it is higher by chance than one exposure, so judge it by its p.",
    ),
    "closing": (
        "Closing text",
        "how much more surely the model predicts the template's text after a secret than after random strings of its "
        "space, in bits, with its p: whoever guesses the secret can confirm it by that.",
    ),
    "p": (
        "p",
        "the probability that a secret that the model never saw looks at least as memorized by chance; for a worst "
        "case it accounts for the number of probes.",
    ),
    "auc": (
        "AUC",
        "the probability that an inserted canary surprises the model less than one that was kept out: 0.5 for a model "
        "that learned nothing of them, 1 for one that tells all apart.",
    ),
    "epsilon": (
        "Privacy loss",
        "the epsilon of differential privacy: how much, as a factor of e to its power, adding a text to the training "
        "may shift the odds of anything that can be seen in the model; the smaller, the more private.",
    ),
    "guesses": (
        "Guesses",
        "how many strings of the format an attacker tries, the likeliest first, until the secret is found; other "
        "canaries behind the same prompt are not counted.",
    ),
    "greedy": (
        "Greedy completion",
        "what the model writes after the prompt if its most likely character is appended again and again.",
    ),
    "predicted": (
        "Predicted",
        "a character of the secret to which the model, given the preceding ones, assigns a probability above 1/2; "
        "characters that the template fixes, such as dashes, are not counted.",
    ),
    "tokens": (
        "By tokens",
        "the secret as the model's tokenizer cuts it, and what each token costs; … stands for the end of the prompt.",
    ),
    "log-perplexity": (
        "Log-perplexity",
        "the negative log2 of the probability that the model assigns to a string, in bits: the lower, the more likely.",
    ),
    "reference": (
        "Reference",
        "a random string of a template's space, scored by the audited model for comparison.",
    ),
    "exact": ("Exact", "an estimate of the exposure that is the secret's rank itself, found by a search."),
    "importance": (
        "Importance",
        "an unbiased estimate of the exposure from references that are drawn where the model finds strings likely.",
    ),
    "sampled": (
        "Sampled",
        "an estimate of the exposure from random references, which cannot exceed log2 of their number by "
        "more than a bit.",
    ),
    "skew-normal": (
        "Skew-normal",
        "an estimate of the exposure that extrapolates a fitted curve, shown for comparison only.",
    ),
    "sampling": (
        "Sampling",
        "the probability that a secret is among that many completions drawn from the model at random.",
    ),
    "accuracy": ("Accuracy", "the share of characters that the model predicts correctly."),
    "loss": ("Loss", "the mean number of bits that the model needs for a character of text: the lower, the better."),
    "efficacy": (
        "Efficacy",
        "whether the secrets are gone: taken together, they are indistinguishable from secrets that the model never "
        "saw.",
    ),
    "fidelity": (
        "Fidelity",
        "whether the model's quality was kept: accuracy on training text outside the secrets must not fall by more "
        "than the limit.",
    ),
    "efficiency": ("Efficiency", "whether unlearning took less time than retraining."),
    "retrained": (
        "Retrained",
        "a model trained again on the text without the secrets: what complete removal looks like.",
    ),
    "relearning": (
        "Relearning",
        "an attack that trains the model further, to see whether secrets come back faster than in a retrained model.",
    ),
}
"""Name and definition by id."""
