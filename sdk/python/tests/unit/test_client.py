"""Both clients against a server that is played: what is sent, and what comes of the answer."""

import asyncio
import inspect
import json

import httpx
import pytest

import kapok_sdk
from kapok_sdk import AsyncScheduler, JobFailed, Scheduler, WaitTimeout


@pytest.fixture(params=["blocking", "asynchronous"])
def call(request, monkeypatch):
    """Calls one method of a client whose server is a function, and closes the client."""
    monkeypatch.delenv("KAPOK_URL", raising=False)
    monkeypatch.delenv("KAPOK_API_KEY", raising=False)

    def blocking(server, method, *args, made=None, **fields):
        with Scheduler(transport=httpx.MockTransport(server), **(made or {})) as sched:
            return getattr(sched, method)(*args, **fields)

    def asynchronous(server, method, *args, made=None, **fields):
        async def run():
            async with AsyncScheduler(transport=httpx.MockTransport(server), **(made or {})) as sched:
                answer = getattr(sched, method)(*args, **fields)
                return await answer if inspect.isawaitable(answer) else answer

        return asyncio.run(run())

    return blocking if request.param == "blocking" else asynchronous


def document(state, **spec):
    return {
        "metadata": {"name": "resnet"},
        "spec": spec,
        "status": {
            "id": "resnet-1",
            "state": state,
            "reason": "Because",
            "message": "of that",
            "submittedAt": "2026-11-22T11:39:50.123Z",
            "startedAt": None,
            "finishedAt": None,
            "conditions": [
                {
                    "type": "Admitted",
                    "status": "True",
                    "reason": "Admitted",
                    "message": "node `a`",
                    "lastTransitionTime": "2026-11-22T11:39:51Z",
                }
            ],
            "placements": [{"node": "a", "region": "gz-nansha", "gpus": [0, 1]}],
            "end": {"exitCode": None, "signal": 9},
            "endpoint": None,
            "fromALaterVersion": {},
        },
    }


def test_a_submission_is_a_manifest_with_the_clients_settings(call):
    seen = []

    def server(request):
        seen.append(request)
        return httpx.Response(201, json=document("Queued", model="resnet50-v2"))

    made = {"region": "gz-nansha", "priority": "realtime", "qos_level": 3, "tenant": "vision", "api_key": "k"}
    job_id = call(server, "submit", model="resnet50-v2", batch_size=64, timeout=299.5, made=made)
    assert job_id == "resnet-1"
    (request,) = seen
    assert (request.method, request.url.path) == ("POST", "/api/v1/jobs")
    assert request.headers["authorization"] == "Bearer k"
    assert json.loads(request.content) == {
        "apiVersion": "kapok.dev/v1alpha1",
        "kind": "Job",
        "metadata": {},
        "spec": {
            "model": "resnet50-v2",
            "batchSize": 64,
            "timeoutSeconds": 300,
            "region": "gz-nansha",
            "tenant": "vision",
            "priority": "realtime",
            "qosLevel": 3,
        },
    }


def test_every_field_of_a_job_is_sent_where_the_server_looks_for_it(call):
    def server(request):
        server.body = json.loads(request.content)
        return httpx.Response(200, json={"text": "it would start at once"})

    told = call(
        server,
        "dry_run",
        command=["python3", "train.py"],
        env={"A": "b"},
        working_dir="/tmp",
        image="busybox",
        name="train",
        labels={"team": "vision"},
        region="bj",
        region_policy="preferred",
        cpu=2,
        memory="2Gi",
        gpus=1,
        device_memory="4Gi",
        gpu_models=("A100",),
        gang=2,
        deadline=60,
        expected=10,
        preemptible=True,
        checkpoint_interval=5,
        restarts=3,
        grace=1,
        priority="realtime",
        qos_level=5,
    )
    assert told.text == "it would start at once"
    assert server.body["metadata"] == {"name": "train", "labels": {"team": "vision"}}
    assert server.body["spec"] == {
        "command": ["python3", "train.py"],
        "env": {"A": "b"},
        "workingDir": "/tmp",
        "image": "busybox",
        "region": "bj",
        "regionPolicy": "preferred",
        "priority": "realtime",
        "qosLevel": 5,
        "resources": {"cpu": 2, "memory": "2Gi", "gpus": 1, "deviceMemory": "4Gi", "gpuModels": ["A100"]},
        "gang": 2,
        "deadlineSeconds": 60,
        "expectedSeconds": 10,
        "preemptible": True,
        "checkpointIntervalSeconds": 5,
        "restart": {"policy": "onFailure", "limit": 3},
        "graceSeconds": 1,
    }


def test_mistakes_that_cannot_be_meant_are_found_before_anything_is_sent(call):
    def server(request):
        raise AssertionError("nothing should be sent")

    with pytest.raises(TypeError, match="batchsize"):
        call(server, "submit", model="m", batchsize=3)
    with pytest.raises(TypeError, match="command is a list"):
        call(server, "submit", command="python3 train.py")
    with pytest.raises(ValueError, match="priority"):
        call(server, "models", made={"priority": "urgent"})
    with pytest.raises(ValueError, match="qos_level"):
        call(server, "models", made={"qos_level": 6})


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "InvalidRequest"),
        (401, "Denied"),
        (403, "Denied"),
        (404, "NotFound"),
        (409, "Conflict"),
        (413, "InvalidRequest"),
        (429, "Busy"),
        (500, "ServerError"),
        (503, "Busy"),
        (504, "Timeout"),
    ],
)
@pytest.mark.parametrize(
    ("body", "message", "code", "param"),
    [
        (b'{"error": "no `x`"}', "no `x`", None, None),
        (
            b'{"error": {"message": "no `x`", "type": "t", "code": "c", "param": "spec.x"}}',
            "no `x`",
            "c",
            "spec.x",
        ),
        (b"upstream is down", "upstream is down", None, None),
        (b"", "the server gave no reason", None, None),
        (b"[1]", "[1]", None, None),
    ],
)
def test_a_refusal_is_an_exception_with_the_servers_words(call, status, kind, body, message, code, param):
    headers = {"x-request-id": "req-1", "retry-after": "7"}
    with pytest.raises(kapok_sdk.ApiError) as caught:
        call(lambda _request: httpx.Response(status, content=body, headers=headers), "job", "j-1")
    error = caught.value
    assert type(error).__name__ == kind
    assert (error.message, error.code, error.param) == (message, code, param)
    assert (error.status, error.request_id, error.retry_after) == (status, "req-1", 7.0)
    assert str(error) == f"{message} (status {status}, request req-1)"


def test_a_server_that_is_not_there_is_named(call):
    def server(request):
        raise httpx.ConnectError("refused", request=request)

    with pytest.raises(kapok_sdk.Unreachable, match=r"http://gpu-7:8000.*refused"):
        call(server, "models", made={"url": "http://gpu-7:8000/"})


def test_the_address_comes_from_the_environment_as_for_the_command(call, monkeypatch):
    monkeypatch.setenv("KAPOK_URL", "http://gpu-9:8000")
    monkeypatch.setenv("KAPOK_API_KEY", "secret")

    def server(request):
        server.seen = (str(request.url), request.headers["authorization"])
        return httpx.Response(200, json={"nodes": [{"name": "a", "region": "bj", "gpus": []}]})

    (node,) = call(server, "nodes")
    assert (node.name, node.region) == ("a", "bj")
    assert server.seen == ("http://gpu-9:8000/api/v1/nodes", "Bearer secret")


def answers(*documents):
    """A server that gives these in turn, and the last one for ever."""
    left = list(documents)

    def server(request):
        server.paths.append(request.url.raw_path.decode())
        return httpx.Response(200, json=left.pop(0) if len(left) > 1 else left[0])

    server.paths = []
    return server


def test_a_model_is_waited_for_until_it_answers(call):
    server = answers(*[document(state, model="m") for state in ("Queued", "Starting", "Running")])
    assert call(server, "wait", "resnet-1").ready
    assert server.paths == ["/api/v1/jobs/resnet-1"] * 3


def test_a_process_is_waited_for_until_it_ends_without_asking_often(call):
    server = answers(*[document(state, command=["a"]) for state in ("Queued", "Running", "Succeeded")])
    assert call(server, "wait", "resnet-1").ended
    assert server.paths == ["/api/v1/jobs/resnet-1", *["/api/v1/jobs/resnet-1?waitMs=20000"] * 2]


@pytest.mark.parametrize("state", ["Failed", "Cancelled"])
def test_a_job_that_ends_badly_raises_unless_it_may(call, state):
    server = answers(document(state, command=["a"]))
    with pytest.raises(JobFailed, match=rf"job `resnet-1` {state.lower()} \(Because\): of that") as caught:
        call(server, "wait", "resnet-1")
    assert caught.value.job.signal == 9
    assert call(server, "wait", "resnet-1", check=False).state == state


def test_a_wait_that_is_over_says_what_the_job_does(call):
    server = answers(document("Queued", command=["a"]))
    with pytest.raises(WaitTimeout, match="is Queued after 0 s: of that") as caught:
        call(server, "wait", "resnet-1", 0)
    assert caught.value.job.state == "Queued"


def test_a_job_is_read_whole_and_from_later_servers_too(call):
    job = call(answers(document("Running", model="m")), "job", "resnet 1")
    assert job.submitted_at.isoformat() == "2026-11-22T11:39:50.123000+00:00"
    assert (job.started_at, job.exit_code, job.signal, job.model) == (None, None, 9, "m")
    assert job.condition("Admitted").status is True
    assert job.condition("Finished") is None
    assert job.placements[0].gpus == (0, 1)


def test_requests_carry_the_region_and_the_deadline(call):
    def server(request):
        server.headers = request.headers
        document = {"model_name": "m", "outputs": [{"name": "o", "datatype": "FP32", "shape": [1], "data": [1.5]}]}
        return httpx.Response(200, json=document)

    found = call(server, "infer", "m", {"i": [1.0]}, timeout=1.5, made={"region": "bj"})
    assert found["o"].tolist() == [1.5]
    assert server.headers["x-kapok-region"] == "bj"
    assert server.headers["x-request-timeout-ms"] == "1500"


def test_logs_are_followed_line_by_line():
    body = "one\ntwo\nthree"

    def server(request):
        server.paths.append(request.url.raw_path.decode())
        return httpx.Response(200, content=body.encode())

    server.paths = []
    with Scheduler(transport=httpx.MockTransport(server)) as sched:
        assert list(sched.follow("j", tail=3)) == ["one", "two", "three"]
        assert sched.logs("j") == body

    async def run():
        async with AsyncScheduler(transport=httpx.MockTransport(server)) as other:
            return [line async for line in other.follow("j")]

    assert asyncio.run(run()) == ["one", "two", "three"]
    assert server.paths == [
        "/api/v1/jobs/j/logs?follow=true&tail=3",
        "/api/v1/jobs/j/logs",
        "/api/v1/jobs/j/logs?follow=true",
    ]
