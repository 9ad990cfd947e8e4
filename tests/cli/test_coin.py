"""Coins through every command: what is kept out, what bounds epsilon, and where it is said."""

import json
from pathlib import Path

import pytest

from tests.commands import FAST, UNLEARN, canaryaudit, succeed

pytestmark = pytest.mark.usefixtures("short_search")


def test_a_run_with_coins_bounds_epsilon_in_every_output() -> None:
    insert = ("insert", "sea.txt", "-o", "RUN", "-t", "The code is {digits:4}.", "-r", "1", "--controls", "2", "--coin")
    succeed(*insert, "-n", "14")
    canaries = json.loads(Path("RUN/canaries.json").read_text("utf-8"))["canaries"]
    coins = [own.get("coin") for own in canaries]
    assert coins.count("in") + coins.count("out") == 14
    succeed("train", "RUN", "--epochs", "1", "--precision", "fp32")
    measured = succeed("measure", "RUN", *FAST, "--probes", "none")
    found = json.loads(Path("RUN/measurements/before.json").read_text("utf-8"))["privacy"]
    assert (found["candidates"], found["inserted"], found["guesses"]) == (14, coins.count("in"), 4)
    assert f"Privacy loss, epsilon: no lower bound for 1 copy of a text: {found['correct']} of 4 coins" in measured.out
    assert f"Membership: AUC {found['membership']['auc']:.3f}" in measured.out
    succeed("unlearn", "RUN", *UNLEARN, "--probes", "none")
    told = succeed("report", "RUN")
    assert "Membership" in told.out
    document = json.loads(Path("reports/RUN/report.json").read_text("utf-8"))
    assert document["privacy_before"] == found
    assert document["privacy_after"]["candidates"] == 14
    assert 'id="privacy"' in Path("reports/RUN/report.html").read_text("utf-8")
    assert "## Membership and privacy loss" in Path("reports/RUN/report.md").read_text("utf-8")


def test_coins_need_canaries_and_one_number_of_copies() -> None:
    few = canaryaudit("insert", "sea.txt", "-o", "RUN", "-n", "6", "-r", "1", "--coin")
    mixed = canaryaudit("insert", "sea.txt", "-o", "RUN", "-n", "24", "--coin")
    assert (few.status, mixed.status) == (2, 2)
    assert "--coin needs at least 12 generated canaries, got 6" in few.complaint
    assert "give one number, such as -r 1" in mixed.complaint
