"""An ensemble of two real models over both clients: what it answers is what its members answer."""

import numpy as np
import tritonclient.grpc as over_grpc
import tritonclient.http as over_http

from harness import ADDRESS, run

CLIENTS = [(over_http, over_http.InferenceServerClient(ADDRESS)), (over_grpc, over_grpc.InferenceServerClient(ADDRESS))]
CROPS = np.random.default_rng(7).random((5, 3, 48, 192), np.float32)


def ask(module, client, model, tensor, array, outputs):
    given = module.InferInput(tensor, list(array.shape), "FP32")
    given.set_data_from_numpy(array)
    answer = client.infer(model, [given], outputs=[module.InferRequestedOutput(name) for name in outputs])
    return [answer.as_numpy(name) for name in outputs]


def executions(model):
    statistics = CLIENTS[0][1].get_inference_statistics(model)
    return int(statistics["model_stats"][0]["execution_count"])


def check_the_ensemble_answers_as_its_members_do():
    for module, client in CLIENTS:
        turned, text = ask(module, client, "lines", "crops", CROPS, ["turned", "text"])
        expected_turned = np.concatenate(
            [ask(module, client, "pp-ocrv4-cls", "x", CROPS[i : i + 1], ["save_infer_model/scale_0.tmp_1"])[0] for i in range(5)]
        )
        expected_text = np.concatenate(
            [ask(module, client, "pp-ocrv4-rec", "x", CROPS[i : i + 1], ["softmax_11.tmp_0"])[0] for i in range(5)]
        )
        np.testing.assert_allclose(turned, expected_turned, atol=1e-4)
        np.testing.assert_allclose(text, expected_text, atol=1e-3)


def check_only_what_is_asked_for_runs():
    before = executions("pp-ocrv4-rec")
    (turned,) = ask(*CLIENTS[0], "lines", "crops", CROPS[:1], ["turned"])
    assert turned.shape == (1, 2), turned.shape
    assert executions("pp-ocrv4-rec") == before


def check_no_crops_give_no_lines():
    for module, client in CLIENTS:
        turned, text = ask(module, client, "lines", "crops", CROPS[:0], ["turned", "text"])
        assert turned.shape[0] == 0 and text.shape[0] == 0, (turned.shape, text.shape)


def check_it_looks_like_an_ensemble():
    http, grpc = CLIENTS[0][1], CLIENTS[1][1]
    metadata = http.get_model_metadata("lines")
    assert metadata["platform"] == "ensemble", metadata
    steps = http.get_model_config("lines")["ensemble_scheduling"]["step"]
    assert [step["model_name"] for step in steps] == ["pp-ocrv4-cls", "pp-ocrv4-rec"], steps
    config = grpc.get_model_config("lines", as_json=True)["config"]
    assert config["platform"] == "ensemble" and len(config["ensemble_scheduling"]["step"]) == 2, config
    assert http.is_model_ready("lines") and grpc.is_model_ready("lines")


run(globals())
