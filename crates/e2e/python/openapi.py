"""schemathesis against our own OpenAPI document: no 5xx, and no answer that the document does not describe."""

import os
import subprocess
import sys
import tempfile

from harness import URL, run

# The same requests each time: a failure can be repeated by hand.
SEED = "20"
EXAMPLES = "5"
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "unsupported_method",
]


# A load or unload changes what every later call answers: these come after the others.
LOAD_AND_UNLOAD = "/models/[^/]+/(load|unload)$"


def operations_tested(*selection):
    program = os.path.join(os.path.dirname(sys.executable), "schemathesis")
    command = [program, "run", f"{URL}/openapi.json", "--url", URL, "--no-color"]
    command += ["--checks", ",".join(CHECKS), "--phases", "coverage,fuzzing"]
    command += ["--seed", SEED, "--max-examples", EXAMPLES, *selection]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    print("\n".join(lines[-120:]))
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    tested = [int(line.split()[-1]) for line in lines if line.strip().startswith("Tested:")]
    assert tested, lines
    return tested[0]


def check_every_answer_is_documented():
    assert operations_tested("--exclude-path-regex", LOAD_AND_UNLOAD) > 40


def check_loading_and_unloading():
    assert operations_tested("--include-path-regex", LOAD_AND_UNLOAD) == 4


run(globals())
