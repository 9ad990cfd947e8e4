"""How many threads multiply matrices: one where there is little to multiply.

A library of linear algebra wakes a thread for each core where a product has some ten thousand entries. On a table of a
few hundred rows a product takes microseconds, and waiting for the other threads takes milliseconds wherever another
program has a core: 15 ms a request were measured so, and 2 ms with one thread.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from threadpoolctl import ThreadpoolController

MOST_ALONE = 2**20
"""Entries of the data, and of the Hessian, up to which one thread multiplies: a gradient then takes a millisecond."""


@contextmanager
def few_threads(num_entries: int, num_columns: int) -> Iterator[None]:
    """Multiply with one thread if there is little to multiply; elsewhere with as many as are set.

    Args:
        num_entries: Stored entries of the data, for every class.
        num_columns: Coefficients.
    """
    if max(num_entries, num_columns**2) > MOST_ALONE:
        yield
        return
    with linear_algebra().limit(limits=1):
        yield


@cache
def linear_algebra() -> ThreadpoolController:
    """Return the libraries' switch. Finding them takes milliseconds, so whoever counts time asks for it before."""
    return ThreadpoolController().select(user_api="blas")
