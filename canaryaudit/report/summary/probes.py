"""Probes and worst cases: the records' figures, masked for the summary."""

from collections.abc import Mapping

from canaryaudit.formatting import counted, pvalue, shorten
from canaryaudit.records import CanaryMeasurement, Measurement, ProbeName
from canaryaudit.report.schema import CanaryState, ProbeFigure, PromptFigure, WorstFigure
from canaryaudit.report.summary.masking import Masker

PROBES_WORDS = (
    "Probes are other ways to prompt for a secret: with preceding text, with only the end of the prefix, with reworded "
    "prompts, without the prefix, and with part of the secret given. References, which were never inserted, are probed "
    "in the same ways. The worst case of a canary is the probe that exposes it most. p is the share of references "
    "whose worst case is at least as high, which corrects for the number of probes."
)
_ASKED = {
    "template": "with the template's prefix",
    "context": "with preceding text",
    "truncated": "with the end of the prefix",
    "reworded": "with a reworded prompt",
    "bare": "without the prefix",
}
_LONGEST_REASONS = 300


def asked(probe: ProbeName) -> str:
    """Describe a probe."""
    family = probe.prompt.split("-")[0]
    prompt = "with a given prompt" if family == "given" else _ASKED[family]
    named = "" if family == "template" else f" ({probe.prompt})"
    return prompt + named + (f", given {counted(probe.known, 'character')} of the secret" if probe.known else "")


def worst_figure(measured: CanaryMeasurement, masker: Masker) -> WorstFigure | None:
    """Return a canary's worst case; None without probes."""
    worst = measured.worst_case
    if worst is None:
        return None
    figures = worst.model_dump(include={"bits", "low", "high", "method", "p_value", "greedy"})
    return WorstFigure(
        **figures,
        guesses_log2=worst.guesses_log2,
        calibrated_bits=worst.calibrated_bits,
        family=worst.probe.family,
        prompt=masker.text(worst.probe.prompt),
        known=worst.probe.known,
        asked=masker.text(asked(worst.probe)),
    )


def probe_figures(measured: CanaryMeasurement, masker: Masker) -> tuple[ProbeFigure, ...] | None:
    """Return a canary's exposure under every probe; None if there are none to show.

    With access to the model, anyone can compute the same forty figures for every string. Even in tenths of a bit they
    would identify a hidden secret.
    """
    if not measured.probes or (measured.masked and not masker.reveal_secrets):
        return None
    return tuple(ProbeFigure.model_validate(probe.model_dump()) for probe in measured.probes)


def prompt_figures(
    measurement: Measurement, places: Mapping[str, int], masker: Masker, texts: Mapping[tuple[str, str], str]
) -> tuple[PromptFigure, ...]:
    """Return the prompts of a measurement.

    Those that the model could not read are left out.

    Args:
        measurement: The measurement with the prompts.
        places: Index of each template.
        masker: Hides secrets.
        texts: Texts that the record omits, by template and id; shown only if secrets are revealed.
    """
    prompts = []
    for prompt in measurement.prompts:
        text = prompt.text
        if text is None and masker.reveal_secrets:
            text = texts.get((prompt.template, prompt.id))
        if prompt.template in places and not prompt.unread:
            prompts.append(
                PromptFigure(
                    template=places[prompt.template],
                    id=masker.text(prompt.id),
                    family=prompt.family,
                    about=masker.text(prompt.about),
                    text=None if text is None else masker.text(text),
                )
            )
    return tuple(prompts)


def unread_words(measurement: Measurement) -> str:
    """Say which prompts the model could not read; nothing if it could read all."""
    unread = [own for own in measurement.prompts if own.unread]
    if not unread:
        return ""
    reasons = "; ".join(dict.fromkeys(own.unread for own in unread))
    return (
        f"The model could not read {counted(len(unread), 'prompt')} of {len(measurement.prompts)}, so nothing was "
        f"asked by them ({shorten(reasons, _LONGEST_REASONS)})."
    )


def worst_words(state: CanaryState) -> str:
    """Write a worst case in a few words: exposure, p-value and probe."""
    worst = state.worst_case
    if worst is None or worst.bits is None or worst.p_value is None:
        return ""
    return f"{worst.bits:.1f} bits, p {pvalue(worst.p_value)}, {worst.asked}"
