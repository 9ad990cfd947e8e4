"""Attacks on an unlearned model by someone who has its weights."""

from canaryaudit.attacks.relearning import RelearningConfig, attack_by_relearning

__all__ = ["RelearningConfig", "attack_by_relearning"]
