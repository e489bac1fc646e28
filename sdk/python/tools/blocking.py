"""Writes ``client.py`` from ``aio.py``, so that the blocking client is the asynchronous one without its awaits.

Usage: ``python tools/blocking.py`` writes it, with ``--check`` it fails if the file is not up to date.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "src" / "kapok_sdk"

#: In this order; each is a whole word.
WORDS = [
    (r"async def", "def"),
    (r"async with", "with"),
    (r"async for", "for"),
    (r"await ", ""),
    (r"AsyncScheduler", "Scheduler"),
    (r"AsyncClient", "Client"),
    (r"AsyncBaseTransport", "BaseTransport"),
    (r"AsyncIterator", "Iterator"),
    (r"asyncio\.sleep", "time.sleep"),
    (r"import asyncio\n", ""),
    (r"__aenter__", "__enter__"),
    (r"__aexit__", "__exit__"),
    (r"__aiter__", "__iter__"),
    (r"aclose", "close"),
    (r"aread", "read"),
    (r"aiter_", "iter_"),
]
HEAD = '"""The blocking client. Written by ``tools/blocking.py`` from ``aio.py``: change that one."""\n'


def blocking(source: str) -> str:
    """The same module without ``async``; its own docstring makes room for one that says where it is from."""
    for word, instead in WORDS:
        source = re.sub(rf"\b{word}", instead, source)
    _own, rest = source.split('"""\n', 1)
    return HEAD + rest


def main(arguments: list[str]) -> int:
    wanted = blocking((PACKAGE / "aio.py").read_text())
    target = PACKAGE / "client.py"
    if arguments == ["--check"]:
        if target.read_text() == wanted:
            return 0
        print(f"{target.name} is not what aio.py makes: run python tools/blocking.py", file=sys.stderr)
        return 1
    target.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
