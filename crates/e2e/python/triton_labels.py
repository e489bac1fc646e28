"""Versions by name, over tritonclient's two wires."""

import numpy as np
import tritonclient.grpc as over_grpc
import tritonclient.http as over_http

from harness import ADDRESS, run

CLIENTS = [(over_http, over_http.InferenceServerClient(ADDRESS)), (over_grpc, over_grpc.InferenceServerClient(ADDRESS))]


def check_a_label_is_a_version():
    for module, client in CLIENTS:
        for label, version in [("stable", "1"), ("canary", "2"), ("", "2")]:
            given = module.InferInput("INPUT0", [2], "FP32")
            given.set_data_from_numpy(np.array([1, 2], np.float32))
            response = client.infer("m", [given], model_version=label).get_response()
            found = response["model_version"] if isinstance(response, dict) else response.model_version
            assert found == version, (module.__name__, label, found)
            assert client.is_model_ready("m", label)


run(globals())
