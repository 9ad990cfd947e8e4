"""Probes and worst cases: what the records say of them, masked, for the summary."""

from collections.abc import Mapping

from canaryaudit.formatting import counted, pvalue
from canaryaudit.records import CanaryMeasurement, Measurement, ProbeName
from canaryaudit.report.schema import CanaryState, ProbeFigure, PromptFigure, WorstFigure
from canaryaudit.report.summary.masking import Masker

PROBES_WORDS = (
    "Every secret was also asked for in other ways: after text that precedes its template, by the template's last "
    "words, in other words, without the template, and with part of the secret known. References that were never "
    "inserted were asked the very same. The worst case of a canary is the way that shows most of it; p is the share "
    "of references whose own worst case is as bad, so that the number of ways is allowed for."
)
_ASKED = {
    "template": "by the template's own prefix",
    "context": "after text that precedes the prefix",
    "truncated": "by the end of the prefix",
    "reworded": "in other words",
    "bare": "without the prefix",
}


def asked(probe: ProbeName) -> str:
    """Say how a secret was asked for."""
    family = probe.prompt.split("-")[0]
    said = "by a prompt of yours" if family == "given" else _ASKED[family]
    named = "" if family == "template" else f" ({probe.prompt})"
    return said + named + (f" with {counted(probe.known, 'character')} of it known" if probe.known else "")


def worst_figure(measured: CanaryMeasurement, masker: Masker) -> WorstFigure | None:
    """Return a canary's worst case; None where only the template's own prefix was asked."""
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
    """Return a canary's exposure under every probe; None where there are none to show.

    Whoever has the model can take the same forty figures of every string: in tenths of a bit they would still tell
    which one a hidden secret is.
    """
    if not measured.probes or (measured.masked and not masker.reveal_secrets):
        return None
    return tuple(ProbeFigure.model_validate(probe.model_dump()) for probe in measured.probes)


def prompt_figures(
    measurement: Measurement, places: Mapping[str, int], masker: Masker, texts: Mapping[tuple[str, str], str]
) -> tuple[PromptFigure, ...]:
    """Return the prompts of a measurement.

    Args:
        measurement: With the prompts.
        places: Index of each template.
        masker: Hides secrets.
        texts: Texts that the record leaves out, by template and id; shown only where secrets are revealed.
    """
    found = []
    for prompt in measurement.prompts:
        text = prompt.text
        if text is None and masker.reveal_secrets:
            text = texts.get((prompt.template, prompt.id))
        if prompt.template in places:
            found.append(
                PromptFigure(
                    template=places[prompt.template],
                    id=masker.text(prompt.id),
                    family=prompt.family,
                    about=masker.text(prompt.about),
                    text=None if text is None else masker.text(text),
                )
            )
    return tuple(found)


def worst_words(state: CanaryState) -> str:
    """Write a worst case in a few words: the exposure, its p-value and how it was asked."""
    worst = state.worst_case
    if worst is None or worst.bits is None or worst.p_value is None:
        return ""
    return f"{worst.bits:.1f} bits, p {pvalue(worst.p_value)}, {worst.asked}"
