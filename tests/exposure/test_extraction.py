"""Tests of canaryaudit.exposure.extraction."""

import numpy as np
import pytest

from canaryaudit.exposure.extraction import beam_completions, greedy_completion
from tests.fakes import TableModel, encoded, every_member

SYMBOLS = "\n!-0123456789abcdef"


def test_the_greedy_completion_takes_the_likeliest_symbol_each_time() -> None:
    model = TableModel(SYMBOLS, 1)
    _, start = encoded("{digits:1}", model)
    state, expected = start, ""
    for _ in range(6):
        best = max(range(len(SYMBOLS)), key=lambda symbol: float(state.log2_probs[0, symbol]))
        expected += SYMBOLS[best]
        state = model.advance(state, state.log2_probs.argmax(1))
    assert greedy_completion(model, start, 6) == expected


def test_a_memorised_secret_is_completed_greedily() -> None:
    model = TableModel(SYMBOLS, 1, memorised=["0123456789"])
    space, start = encoded("{digits:10}", model)
    assert greedy_completion(model, start, 10) == "0123456789"
    assert beam_completions(model, start, space)[0] == tuple(model.vocabulary.encode("0123456789").tolist())


@pytest.mark.parametrize("template", ["{digits:2}", "{choice:a|bb|bcd}-{digits:1}", "{choice:0|1|2}{choice:ab|cde}"])
def test_a_beam_as_wide_as_the_space_lists_it_in_order(template: str) -> None:
    model = TableModel(SYMBOLS, 2)
    space, start = encoded(template, model)
    members, costs = every_member(template, model)
    expected = [tuple(row[row >= 0].tolist()) for row in members[np.argsort(costs, kind="stable")]]
    assert beam_completions(model, start, space, width=space.size) == expected


def test_a_narrow_beam_gives_that_many_members_in_order() -> None:
    model = TableModel(SYMBOLS, 3)
    space, start = encoded("{choice:a|bb|bcd|bce}{digits:3}", model)
    found = beam_completions(model, start, space, width=5)
    members, costs = every_member("{choice:a|bb|bcd|bce}{digits:3}", model)
    cost_of = {tuple(row[row >= 0].tolist()): cost for row, cost in zip(members, costs, strict=True)}
    assert len(found) == 5
    assert [cost_of[own] for own in found] == sorted(cost_of[own] for own in found)
