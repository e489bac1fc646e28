"""These tests talk to a real server: `cargo xtask test -p e2e sdk` starts it and names it in KAPOK_URL."""

import os

import pytest

from kapok_sdk import Scheduler


@pytest.fixture
def sched():
    assert os.environ.get("KAPOK_URL"), "run by cargo xtask test, which starts the server"
    with Scheduler(region="gz-nansha") as made:
        yield made
