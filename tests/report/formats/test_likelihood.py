import pytest

from canaryaudit.report.formats.likelihood import MOST_CHARACTERS, Piece, likelihoods, predicted

DASHED = "my code is {digits:4}-{digits:1}."


def test_neighbors_of_one_likelihood_stand_together():
    assert likelihoods(DASHED, "0123-4", [0.1, 0.99, 1.0, 3.4, 0.0, 0.2]) == (
        Piece("01", "likely"),
        Piece("2", "fair"),
        Piece("3-", ""),
        Piece("4", "likely"),
    )


@pytest.mark.parametrize(
    ("template", "secret", "bits", "words"),
    [
        (DASHED, "0123-4", [0.1, 0.99, 1.0, 3.4, 0.0, 0.2], "3 of 5 digits predicted"),
        ("the plate is {upper:2}-{digits:1}!", "AB-1", [0.1, 2.0, 0.0, 0.3], "2 of 3 characters predicted"),
        ("he is {lower:1}", "a", [0.1], "1 of 1 letter predicted"),
        ("it is {choice:red|green} {digits:1}", "green 7", [0.1] * 5 + [0.0, 4.0], "5 of 6 characters predicted"),
    ],
)
def test_only_characters_of_the_secret_are_counted_and_not_the_templates_own(template, secret, bits, words):
    assert predicted(template, secret, bits) == words


def test_a_masked_template_that_is_none_any_more_counts_all_characters():
    assert predicted("{•• {digits:2}", "12", [0.1, 4.0]) == "1 of 2 characters predicted"


def test_nothing_is_said_where_the_likelihoods_are_unknown_or_of_another_secret():
    for bits in (None, [], [0.1, 0.1]):
        assert likelihoods("is {digits:3}", "012", bits) == ()
        assert predicted("is {digits:3}", "012", bits) == ""


def test_a_long_secret_is_cut():
    pieces = likelihoods("is {lower:500}", "a" * 500, [0.0] * 500)
    assert [piece.text for piece in pieces] == ["a" * MOST_CHARACTERS, "…"]
