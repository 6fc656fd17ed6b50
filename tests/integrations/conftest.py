"""What the tests of all doors share."""

from __future__ import annotations

import pytest

from askonce import Cache, _events
from askonce.testing import FakeProvider


@pytest.fixture(scope="session")
def running_provider():
    with FakeProvider() as running:
        yield running


@pytest.fixture
def provider(running_provider):
    running_provider.reset()
    yield running_provider
    running_provider.reset()


@pytest.fixture
def cache():
    with Cache("memory://") as cache:
        yield cache


@pytest.fixture(autouse=True)
def _every_warning_may_be_said_again():
    _events._last.clear()
