"""What every script shares: where the server is, and how its checks are run and reported.

A script is a list of functions named `check_…`; each is run once, and the script fails if one does.
"""

import os
import sys
import time
import traceback
from urllib.parse import urlsplit

URL = os.environ.get("KAPOK_URL", "")
ADDRESS = urlsplit(URL).netloc


def raises(kind, call):
    """The exception of this kind (or of one of these) that the call raises."""
    try:
        answer = call()
    except kind as error:
        return error
    raise AssertionError(f"expected {kind}, got {answer!r}")


def within(seconds, ask, holds):
    """The first answer of which this holds; asks until then."""
    end = time.monotonic() + seconds
    while not holds(answer := ask()):
        assert time.monotonic() < end, f"not within {seconds} s: {answer!r}"
        time.sleep(0.02)
    return answer


def run(names):
    checks = [(name, check) for name, check in names.items() if name.startswith("check_")]
    assert checks, "a script without checks checks nothing"
    failed = 0
    for name, check in checks:
        started = time.monotonic()
        try:
            check()
        except Exception:
            failed += 1
            print(f"FAILED {name}")
            traceback.print_exc(file=sys.stdout)
        else:
            print(f"ok {name} ({time.monotonic() - started:.2f} s)")
    print(f"{len(checks) - failed} of {len(checks)} checks hold")
    sys.exit(1 if failed else 0)
