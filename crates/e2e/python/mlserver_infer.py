"""`mlserver infer` as published, over REST; its own `--transport grpc` says that it does not exist yet."""

import json
import os
import subprocess
import sys
import tempfile

from harness import ADDRESS, run


def infer(requests, *flags):
    """What the command writes for these requests, in their order; its exit code and log beside it."""
    with tempfile.TemporaryDirectory() as folder:
        given, answered = os.path.join(folder, "in.jsonl"), os.path.join(folder, "out.jsonl")
        with open(given, "w") as file:
            file.writelines(json.dumps(request) + "\n" for request in requests)
        program = os.path.join(os.path.dirname(sys.executable), "mlserver")
        command = [program, "infer", "-u", ADDRESS, "-i", given, "-o", answered, *flags]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
        answers = []
        if os.path.exists(answered):
            with open(answered) as file:
                answers = [json.loads(line) for line in file]
    answers.sort(key=lambda answer: answer["parameters"]["batch_index"])
    return answers, done


def request(values):
    return {"inputs": [{"name": "INPUT0", "shape": [1, 3], "datatype": "FP32", "data": values}]}


def check_rest():
    # As JSON one by one; as binary tensors merged into batches of the model's own limit, several at once.
    rows = [[float(turn), -1.5, 0.25] for turn in range(10)]
    for flags in ([], ["-b", "-s", "8", "-w", "4"]):
        answers, done = infer([request(row) for row in rows], "-m", "batched", *flags)
        assert done.returncode == 0 and len(answers) == len(rows), (flags, done.stdout, done.stderr)
        for row, answer in zip(rows, answers):
            assert "error" not in answer, (flags, answer)
            output = answer["outputs"][0]
            assert (output["name"], output["datatype"], output["shape"]) == ("OUTPUT0", "FP32", [1, 3]), answer
            assert output["data"] == row, answer


def check_an_error_is_told_in_the_output():
    answers, done = infer([request([1.0, 2.0, 3.0])], "-m", "nope", "-r", "1")
    assert done.returncode == 0 and len(answers) == 1, (done.stdout, done.stderr)
    assert "unknown model: 'nope'" in answers[0]["error"]["msg"], answers


def check_its_grpc_is_still_missing():
    answers, done = infer([request([1.0, 2.0, 3.0])], "-m", "batched", "-t", "grpc")
    assert done.returncode != 0 and "not yet supported" in done.stderr and not answers, (done.stdout, done.stderr)


run(globals())
