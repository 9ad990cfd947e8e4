"""Membership and privacy loss in sentences, the same in terminals and reports."""

from canaryaudit.formatting import counted
from canaryaudit.records import Privacy


def membership_words(privacy: Privacy) -> str:
    """Say how well inserted canaries can be told from those kept out."""
    own = privacy.membership
    return (
        f"AUC {own.auc:.3f} ({own.auc_low:.3f} to {own.auc_high:.3f}; 0.5 is chance); {own.true_positive_rate:.0%} of "
        f"inserted canaries ({own.tpr_low:.0%} to {own.tpr_high:.0%}) found at {own.false_positive_rate:.0%} false "
        "alarms"
    )


def epsilon_words(privacy: Privacy) -> str:
    """Say what the guesses bound, and what they can bound at most."""
    bound = (
        f"at least {privacy.epsilon_low:.2f} (95 %, delta {privacy.delta:g})"
        if privacy.epsilon_low
        else "no lower bound"
    )
    return (
        f"{bound} for {counted(privacy.copies, 'copy')} of a text: {privacy.correct:,} of {privacy.guesses:,} coins "
        f"guessed rightly; {privacy.candidates:,} canaries can show {privacy.epsilon_ceiling:.2f} at most"
    )
