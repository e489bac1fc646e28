"""Triton's own decoupled and iterative test models: ensembles over a decoupled member, and requests that run again."""

import json
import queue

import numpy as np
import requests
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from tritonclient.utils import InferenceServerException

from harness import ADDRESS, URL, raises, run

REPEATING = ["repeat_int32", "simple_repeat", "sequence_repeat", "fan_repeat"]


def tensor(module, name, values, dtype):
    array = np.array(values, dtype)
    given = module.InferInput(name, list(array.shape), {np.int32: "INT32", np.uint32: "UINT32"}[dtype])
    given.set_data_from_numpy(array)
    return given


def repeating(values, delay=1, module=grpcclient):
    return [
        tensor(module, "IN", values, np.int32),
        tensor(module, "DELAY", [delay] * len(values), np.uint32),
        tensor(module, "WAIT", [0], np.uint32),
    ]


def counting(values):
    return [tensor(grpcclient, "INPUT", [values], np.int32)]


def stream(asked, output, ends=False):
    """Each request's answers, by its place in `asked`, which is pairs of a model and its inputs; with their ends, if asked."""
    answers = {str(place): [] for place in range(len(asked))}
    came = queue.Queue()
    with grpcclient.InferenceServerClient(ADDRESS) as client:
        client.start_stream(lambda result, error: came.put(error or result))
        for place, (model, inputs) in enumerate(asked):
            client.async_stream_infer(model, inputs, request_id=str(place), enable_empty_final_response=True)
        open_requests = len(asked)
        while open_requests:
            answer = came.get(timeout=20)
            if isinstance(answer, InferenceServerException):
                raise answer
            response = answer.get_response()
            if answer.as_numpy(output) is not None:
                answers[response.id].extend(answer.as_numpy(output).flatten().tolist())
            open_requests -= response.parameters["triton_final_response"].bool_param
        client.stop_stream()
    return list(answers.values())


def check_ensembles_answer_as_often_as_their_member():
    for model in REPEATING:
        for values in ([], [100], [100, 101, 102, 103, 104]):
            for together in (1, 5):
                answers = stream([(model, repeating(values))] * together, "OUT")
                assert answers == [values] * together, (model, answers)


def check_a_decoupled_member_behind_another():
    for model in ("repeat_square", "nested_square"):
        answers = stream([(model, repeating([2, 0, 3])), (model, repeating([1]))], "OUT")
        assert answers == [[2, 2, 3, 3, 3], [1]], (model, answers)


def check_they_take_no_plain_request():
    over_grpc, over_http = grpcclient.InferenceServerClient(ADDRESS), httpclient.InferenceServerClient(ADDRESS)
    for model in REPEATING:
        for client, module in ((over_grpc, grpcclient), (over_http, httpclient)):
            inputs = repeating([1], module=module)
            error = raises(InferenceServerException, lambda: client.infer(model, inputs))
            assert "doesn't support models with decoupled transaction policy" in error.message(), error
        assert over_http.get_model_config(model)["model_transaction_policy"]["decoupled"] is True


def events(model, body):
    answer = requests.post(f"{URL}/v2/models/{model}/generate_stream", data=json.dumps(body), timeout=20)
    answer.raise_for_status()
    return [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]


def check_requests_that_run_again():
    assert stream([("iterative_sequence", counting([2]))] * 4, "OUTPUT") == [[1, 0]] * 4
    many = [("iterative_sequence", counting([length])) for length in (1, 7, 3, 12, 2, 9)]
    assert stream(many, "OUTPUT") == [list(range(length - 1, -1, -1)) for length in (1, 7, 3, 12, 2, 9)]
    assert [event["OUTPUT"] for event in events("iterative_sequence", {"INPUT": 2})] == [1, 0]


def check_an_onnx_model_that_asks_for_another_run():
    many = [("countup", counting([length])) for length in (5, 1, 3)]
    assert stream(many, "OUTPUT") == [[1, 2, 3, 4, 5], [1], [1, 2, 3]]
    with grpcclient.InferenceServerClient(ADDRESS) as client:
        answer = client.infer("countup_once", counting([6]))
        assert answer.as_numpy("OUTPUT").tolist() == [[6]]
        config = client.get_model_config("countup", as_json=True)["config"]
        assert config["sequence_batching"]["iterative_sequence"] is True, config


def check_a_scheduler_that_runs_nothing_again():
    config = {
        "backend": "iterative_sequence",
        "max_batch_size": 1,
        "input": [{"name": "INPUT", "data_type": "TYPE_INT32", "dims": [1]}],
        "output": [{"name": "OUTPUT", "data_type": "TYPE_INT32", "dims": [1]}],
        "model_transaction_policy": {"decoupled": True},
        "dynamic_batching": {},
        "instance_group": [{"kind": "KIND_CPU"}],
    }
    with grpcclient.InferenceServerClient(ADDRESS) as client:
        client.load_model("iterative_sequence", config=json.dumps(config))
        error = raises(InferenceServerException, lambda: stream([("iterative_sequence", counting([2]))], "OUTPUT"))
        assert "Request is released with TRITONSERVER_REQUEST_RELEASE_RESCHEDULE" in str(error), error
        client.load_model("iterative_sequence")
    assert stream([("iterative_sequence", counting([3]))], "OUTPUT") == [[2, 1, 0]]


def check_a_file_that_is_another_is_not_loaded():
    client = httpclient.InferenceServerClient(ADDRESS)
    assert client.is_model_ready("summed")
    config = client.get_model_config("summed")
    agent = config["model_repository_agents"]["agents"][0]
    assert agent["name"] == "checksum", config
    agent["parameters"] = {"MD5:1/weights": "d726e132f91f16ebee703d96f6f73cb1"}
    error = raises(InferenceServerException, lambda: client.load_model("summed", config=json.dumps(config)))
    expected = (
        "Mismatched MD5 hash for file 1/weights, "
        "expect: d726e132f91f16ebee703d96f6f73cb1, got: 900150983cd24fb0d6963f7d28e17f72"
    )
    assert expected in error.message(), error
    assert client.is_model_ready("summed"), "what serves goes on serving"
    agent["name"] = "decrypt"
    error = raises(InferenceServerException, lambda: client.load_model("summed", config=json.dumps(config)))
    assert "unable to find 'libtritonrepoagent_decrypt.so' for repo agent 'decrypt'" in error.message(), error


run(globals())
