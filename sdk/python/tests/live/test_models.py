import asyncio

import numpy as np
import pytest

import kapok_sdk
from kapok_sdk import AsyncScheduler, Scheduler, Tensor


def test_models_are_listed_with_their_state(sched):
    found = {model.name: model for model in sched.models()}
    assert found["identity"].state == "READY"
    assert found["identity"].owner == "kapok"


def test_a_model_describes_its_tensors(sched):
    found = sched.model("identity")
    (given,) = found.inputs
    assert (given.name, given.datatype, given.shape) == ("INPUT0", "FP32", (-1,))


@pytest.mark.parametrize(
    "inputs",
    [
        {"INPUT0": [1.5, 2.5]},
        {"INPUT0": np.array([1.5, 2.5], dtype=np.float32)},
        {"INPUT0": Tensor("FP32", (2,), [1.5, 2.5])},
        [1.5, 2.5],
        np.array([1.5, 2.5], dtype=np.float32),
    ],
)
def test_a_model_answers(sched, inputs):
    found = sched.infer("identity", inputs, timeout=30)
    assert found.model == "identity"
    assert found["OUTPUT0"].tolist() == [1.5, 2.5]
    assert found["OUTPUT0"].numpy().dtype == np.float32


def test_text_comes_back_as_it_went(sched):
    for texts in (["ä", "b"], [b"\xff", b""]):
        found = sched.infer("strings", {"INPUT0": texts}, outputs=["OUTPUT0"])["OUTPUT0"].tolist()
        assert [one.encode() if isinstance(one, str) else one for one in found] == [
            one.encode() if isinstance(one, str) else one for one in texts
        ]


def test_what_the_server_refuses_is_said_in_its_words(sched):
    with pytest.raises(kapok_sdk.NotFound, match="absent") as caught:
        sched.infer("absent", {"x": [1]})
    assert caught.value.status == 404
    assert caught.value.request_id.startswith("req-")
    with pytest.raises(kapok_sdk.InvalidRequest, match="wrong"):
        sched.infer("identity", {"wrong": [1.0]})
    with Scheduler(url="http://127.0.0.1:1") as nowhere, pytest.raises(kapok_sdk.Unreachable):
        nowhere.models()


def test_many_at_once_without_a_thread():
    async def ask(sched, number):
        found = await sched.infer("identity", {"INPUT0": [float(number)]})
        return found["OUTPUT0"].tolist()[0]

    async def run():
        async with AsyncScheduler(region="gz-nansha") as sched:
            return await asyncio.gather(*(ask(sched, number) for number in range(50)))

    assert asyncio.run(run()) == [float(number) for number in range(50)]
