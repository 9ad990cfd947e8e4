from canaryaudit.report.formats.likelihood import MOST_CHARACTERS, Piece, likelihoods, predicted


def test_neighbors_of_one_likelihood_stand_together():
    assert likelihoods("0123-", [0.1, 0.99, 1.0, 3.4, 0.0]) == (
        Piece("01", "likely"),
        Piece("2", "fair"),
        Piece("3", ""),
        Piece("-", "likely"),
    )
    assert predicted("0123-", [0.1, 0.99, 1.0, 3.4, 0.0]) == "3 of 5 predicted"


def test_nothing_is_said_where_the_likelihoods_are_unknown_or_of_another_secret():
    for bits in (None, [], [0.1, 0.1]):
        assert likelihoods("012", bits) == ()
        assert predicted("012", bits) == ""


def test_a_long_secret_is_cut():
    pieces = likelihoods("a" * 500, [0.0] * 500)
    assert [piece.text for piece in pieces] == ["a" * MOST_CHARACTERS, "…"]
