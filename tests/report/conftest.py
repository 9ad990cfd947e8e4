"""What the report's tests share."""

from collections.abc import Iterator

import pytest

from tests.browser import Browser, find_chromium


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A headless Chromium, one for all tests; without one, tests that need it are skipped."""
    executable = find_chromium()
    if executable is None:
        pytest.skip("no Chromium is installed: apt-get install chromium")
    with Browser(executable, tmp_path_factory.mktemp("profile")) as running:
        yield running
