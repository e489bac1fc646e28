"""Both clients are one: the blocking one is written from the other."""

import importlib.util
import inspect
from pathlib import Path

from kapok_sdk import AsyncScheduler, Scheduler

TOOL = Path(__file__).parents[2] / "tools" / "blocking.py"


def test_the_blocking_client_is_up_to_date():
    spec = importlib.util.spec_from_file_location("blocking", TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert tool.main(["--check"]) == 0


def test_both_have_the_same_methods_and_say_what_they_do():
    def public(kind):
        found = inspect.getmembers(kind, inspect.isfunction)
        return {name: method for name, method in found if not name.startswith("_")}

    blocking, other = public(Scheduler), public(AsyncScheduler)
    assert set(blocking) == {"close" if name == "aclose" else name for name in other}
    for name, method in blocking.items():
        assert method.__doc__, name
        if name != "close":
            assert inspect.signature(method).parameters.keys() == inspect.signature(other[name]).parameters.keys()
