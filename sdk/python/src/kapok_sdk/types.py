"""What goes in and what comes out, as plain typed values."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeAlias, TypedDict

#: ``realtime`` is never pre-empted for ``cost_optimized``.
Priority: TypeAlias = Literal["realtime", "cost_optimized"]

#: A job's name on the server.
JobId: TypeAlias = str


@dataclass(frozen=True)
class Settings:
    """What a client was made with."""

    region: str | None
    priority: Priority
    #: 1 (whatever is left) to 5 (guaranteed).
    qos_level: int
    tenant: str | None
    url: str
    #: Seconds to wait for an answer.
    request_timeout: float


@dataclass(frozen=True)
class Model:
    """A model as the server lists it."""

    name: str
    version: str | None
    #: ``READY``, ``LOADING``, ``UNAVAILABLE``, …; absent of models of other servers.
    state: str | None
    #: Why it is not ready.
    reason: str | None
    #: Who serves it.
    owner: str | None


@dataclass(frozen=True)
class Input:
    """An input or an output of a model; -1 in the shape is any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class ModelMetadata:
    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[Input, ...]
    outputs: tuple[Input, ...]


@dataclass(frozen=True)
class Condition:
    """One of Kueue's conditions of a workload: ``QuotaReserved``, ``Admitted``, ``PodsReady``, ``Finished``, …"""

    type: str
    status: bool | None
    reason: str
    message: str
    last_transition_time: datetime


@dataclass(frozen=True)
class Placement:
    """Where one member of a job is."""

    node: str
    region: str
    gpus: tuple[int, ...]


@dataclass(frozen=True)
class Job:
    """A job as it was when it was asked about."""

    id: JobId
    name: str
    #: ``Queued``, ``Starting``, ``Running``, ``Stopping``, ``Succeeded``, ``Failed`` or ``Cancelled``.
    state: str
    #: One word for programs, such as ``WaitingForQuota`` or ``MaximumExecutionTimeExceeded``.
    reason: str
    #: The same as a sentence.
    message: str
    submitted_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    conditions: tuple[Condition, ...]
    attempts: int
    restarts: int
    preemptions: int
    placements: tuple[Placement, ...]
    #: How its last process ended: with a code, or by a signal.
    exit_code: int | None
    signal: int | None
    #: Where its model answers.
    endpoint: str | None
    #: As it was submitted, with defaults filled in.
    spec: Mapping[str, Any]

    @property
    def ended(self) -> bool:
        """Whether nothing will change any more."""
        return self.state in ("Succeeded", "Failed", "Cancelled")

    @property
    def model(self) -> str | None:
        """The model that it serves, if it is not a process."""
        found = self.spec.get("model")
        return found if isinstance(found, str) else None

    @property
    def ready(self) -> bool:
        """Whether there is what one waits for: the model answers, or the process has ended well."""
        return self.state == ("Running" if self.model else "Succeeded")

    def condition(self, kind: str) -> Condition | None:
        return next((one for one in self.conditions if one.type == kind), None)


@dataclass(frozen=True)
class Explanation:
    """Why a job waits, when it will run, and what would make it fit."""

    #: Sentences for people.
    text: str
    #: Everything the server said.
    raw: Mapping[str, Any]


@dataclass(frozen=True)
class Node:
    """A node that jobs can run on."""

    name: str
    region: str | None
    #: Everything the server said.
    raw: Mapping[str, Any]


class JobFields(TypedDict, total=False):
    """What :meth:`Scheduler.submit` takes. Either ``model`` or ``command``."""

    #: A model of the repository, which the chosen node loads.
    model: str
    #: Its largest batch, instead of its configuration's.
    batch_size: int
    #: A program and its arguments.
    command: Sequence[str]
    env: Mapping[str, str]
    working_dir: str
    #: A container's image, where containers run.
    image: str
    #: What to call it; it gets an id of its own anyway.
    name: str
    labels: Mapping[str, str]
    region: str
    #: ``required`` waits for room in the region, ``preferred`` goes elsewhere instead.
    region_policy: Literal["required", "preferred"]
    tenant: str
    priority: Priority
    qos_level: int
    #: Cores.
    cpu: float | str
    #: Bytes, or ``"2Gi"``.
    memory: int | str
    gpus: int
    #: A part of one GPU, above 0 and below 1.
    gpu_share: float
    #: A slice of one GPU, such as ``1g.10gb``.
    mig_profile: str
    #: Of each GPU: bytes, or ``"2Gi"``.
    device_memory: int | str
    gpu_models: Sequence[str]
    #: Members that start together or not at all.
    gang: int
    #: Seconds. A process that runs longer, or a model that is not ready by then, is cancelled.
    timeout: float
    #: Seconds from now by which it should have ended.
    deadline: float
    #: Seconds that it is expected to run.
    expected: float
    preemptible: bool
    #: Seconds.
    checkpoint_interval: float
    #: Starts again after failures, so often.
    restarts: int
    #: Seconds between the request to end and the end.
    grace: float


_SPEC = {
    "model": "model",
    "batch_size": "batchSize",
    "working_dir": "workingDir",
    "image": "image",
    "region": "region",
    "region_policy": "regionPolicy",
    "tenant": "tenant",
    "priority": "priority",
    "qos_level": "qosLevel",
    "gang": "gang",
    "preemptible": "preemptible",
}
_RESOURCES = {
    "cpu": "cpu",
    "memory": "memory",
    "gpus": "gpus",
    "gpu_share": "gpuShare",
    "mig_profile": "migProfile",
    "device_memory": "deviceMemory",
}
_SECONDS = {
    "timeout": "timeoutSeconds",
    "deadline": "deadlineSeconds",
    "expected": "expectedSeconds",
    "checkpoint_interval": "checkpointIntervalSeconds",
    "grace": "graceSeconds",
}


def manifest(fields: JobFields, settings: Settings) -> dict[str, Any]:
    """The document that submits a job. What the server would refuse is left for it to say."""
    given: dict[str, Any] = {name: value for name, value in fields.items() if value is not None}
    unknown = given.keys() - JobFields.__annotations__.keys()
    if unknown:
        raise TypeError(f"submit() got unexpected arguments: {', '.join(sorted(unknown))}")
    spec: dict[str, Any] = {"priority": settings.priority, "qosLevel": settings.qos_level}
    if settings.region is not None:
        spec["region"] = settings.region
    if settings.tenant is not None:
        spec["tenant"] = settings.tenant
    spec.update({wire: given[name] for name, wire in _SPEC.items() if name in given})
    # Whole seconds, and never none of what was asked for.
    spec.update({wire: math.ceil(given[name]) for name, wire in _SECONDS.items() if name in given})
    resources = {wire: given[name] for name, wire in _RESOURCES.items() if name in given}
    if "gpu_models" in given:
        resources["gpuModels"] = list(given["gpu_models"])
    if resources:
        spec["resources"] = resources
    if "command" in given:
        if isinstance(given["command"], str):
            raise TypeError("command is a list: the program and its arguments, such as ['python3', 'train.py']")
        spec["command"] = list(given["command"])
    if "env" in given:
        spec["env"] = dict(given["env"])
    if given.get("restarts"):
        spec["restart"] = {"policy": "onFailure", "limit": given["restarts"]}
    metadata: dict[str, Any] = {}
    if "name" in given:
        metadata["name"] = given["name"]
    if "labels" in given:
        metadata["labels"] = dict(given["labels"])
    return {"apiVersion": "kapok.dev/v1alpha1", "kind": "Job", "metadata": metadata, "spec": spec}


def job(document: Mapping[str, Any]) -> Job:
    """A job from the server's document. What a later server adds is passed over."""
    status = document["status"]
    end = status.get("end") or {}
    return Job(
        id=status["id"],
        name=document["metadata"]["name"],
        state=status["state"],
        reason=status["reason"],
        message=status["message"],
        submitted_at=_moment(status["submittedAt"]),
        started_at=_maybe(status.get("startedAt")),
        finished_at=_maybe(status.get("finishedAt")),
        conditions=tuple(
            Condition(
                type=one["type"],
                status={"True": True, "False": False}.get(one["status"]),
                reason=one["reason"],
                message=one["message"],
                last_transition_time=_moment(one["lastTransitionTime"]),
            )
            for one in status.get("conditions", ())
        ),
        attempts=status.get("attempts", 0),
        restarts=status.get("restarts", 0),
        preemptions=status.get("preemptions", 0),
        placements=tuple(
            Placement(node=one["node"], region=one["region"], gpus=tuple(one.get("gpus", ())))
            for one in status.get("placements", ())
        ),
        exit_code=end.get("exitCode"),
        signal=end.get("signal"),
        endpoint=status.get("endpoint"),
        spec=document["spec"],
    )


def _moment(text: str) -> datetime:
    # `Z` is read from Python 3.11 on.
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def _maybe(text: str | None) -> datetime | None:
    return None if text is None else _moment(text)


def explanation(document: Mapping[str, Any]) -> Explanation:
    text = document.get("text") or document.get("message") or document.get("summary")
    return Explanation(text=text if isinstance(text, str) else json.dumps(document), raw=document)


def node(document: Mapping[str, Any]) -> Node:
    return Node(name=document["name"], region=document.get("region") or None, raw=document)
