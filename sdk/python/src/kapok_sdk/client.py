"""The blocking client. Written by ``tools/blocking.py`` from ``aio.py``: change that one."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import httpx

from . import tensors
from .errors import JobFailed, Timeout, Unreachable, WaitTimeout, from_response
from .tensors import Inference, Tensor, TensorLike
from .types import Explanation, Input, Job, JobFields, JobId, Model, ModelMetadata, Node, Priority, Settings, manifest
from .types import explanation as read_explanation
from .types import job as read_job
from .types import node as read_node

if TYPE_CHECKING:
    from typing_extensions import Unpack

Self = TypeVar("Self", bound="Scheduler")

DEFAULT_URL = "http://127.0.0.1:8000"

#: Seconds that the server may hold back the answer to a wait.
HELD = 20.0
#: Seconds between two looks at a model that is being loaded: from the first to the longest.
LOOKS = (0.05, 1.0)


class Scheduler:
    """A kapok server: submit work, follow it, and ask its models.

    ``region``, ``priority`` and ``qos_level`` hold for every job that does not say otherwise. Requests to models carry
    the region, too, and stay in it while somebody there can answer.

    ``url`` and ``api_key`` default to the environment's ``KAPOK_URL`` and ``KAPOK_API_KEY``, as for the command
    ``kapok``, and the address then to ``http://127.0.0.1:8000``.
    """

    def __init__(
        self,
        *,
        region: str | None = None,
        priority: Priority = "cost_optimized",
        qos_level: int = 3,
        tenant: str | None = None,
        url: str | None = None,
        api_key: str | None = None,
        request_timeout: float = 60.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        if priority not in ("realtime", "cost_optimized"):
            raise ValueError(f"priority is `realtime` or `cost_optimized`, not {priority!r}")
        if qos_level not in range(1, 6):
            raise ValueError(f"qos_level is 1 (whatever is left) to 5 (guaranteed), not {qos_level!r}")
        self.settings = Settings(
            region=region,
            priority=priority,
            qos_level=qos_level,
            tenant=tenant,
            url=(url or os.environ.get("KAPOK_URL") or DEFAULT_URL).rstrip("/"),
            request_timeout=request_timeout,
        )
        headers = {"accept": "application/json"}
        key = api_key or os.environ.get("KAPOK_API_KEY")
        if key:
            headers["authorization"] = f"Bearer {key}"
        self._client = httpx.Client(
            base_url=self.settings.url,
            headers=headers,
            timeout=httpx.Timeout(request_timeout),
            transport=transport,
        )

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def submit(self, **fields: Unpack[JobFields]) -> JobId:
        """Puts a job in the queue and returns its id.

        Either ``model``, which the chosen node loads and serves until the job is cancelled, or ``command``, a program
        that runs to its end. All fields are in :class:`~kapok_sdk.JobFields`.
        """
        return read_job(self._json("POST", "/api/v1/jobs", manifest(fields, self.settings))).id

    def dry_run(self, **fields: Unpack[JobFields]) -> Explanation:
        """What would become of this job if :meth:`submit` were called with the same now; nothing is submitted."""
        path = "/api/v1/jobs?dryRun=true"
        return read_explanation(self._json("POST", path, manifest(fields, self.settings)))

    def job(self, job_id: JobId) -> Job:
        """The job as it is now."""
        return read_job(self._json("GET", f"/api/v1/jobs/{quote(job_id, safe='')}"))

    def jobs(self, *, state: str | None = None, tenant: str | None = None, limit: int = 100) -> list[Job]:
        """Jobs, newest first, those that have ended included."""
        said = {"state": state, "tenant": tenant, "limit": str(limit)}
        query = httpx.QueryParams({name: value for name, value in said.items() if value is not None})
        found = self._json("GET", f"/api/v1/jobs?{query}")
        return [read_job(one) for one in found["jobs"]]

    def wait(self, job_id: JobId, timeout: float | None = None, *, check: bool = True) -> Job:
        """Waits until the model of a job answers, or its process has ended.

        :param timeout: seconds; then :class:`~kapok_sdk.WaitTimeout`, and the job goes on.
        :param check: whether a job that failed or was cancelled raises :class:`~kapok_sdk.JobFailed`.
        """
        end = None if timeout is None else time.monotonic() + timeout
        path = f"/api/v1/jobs/{quote(job_id, safe='')}"
        pause, longest = LOOKS
        found = self.job(job_id)
        while not (found.ended or found.ready):
            left = HELD if end is None else end - time.monotonic()
            if left <= 0:
                raise WaitTimeout(f"job `{job_id}` is {found.state} after {timeout:g} s: {found.message}", found)
            if found.model:
                time.sleep(min(pause, left))
                pause = min(2 * pause, longest)
                found = self.job(job_id)
            else:
                held = min(HELD, left)
                query = f"{path}?waitMs={max(1, round(held * 1000))}"
                found = read_job(self._json("GET", query, patience=held))
        if check and not found.ready:
            raise JobFailed(f"job `{job_id}` {found.state.lower()} ({found.reason}): {found.message}", found)
        return found

    def cancel(self, job_id: JobId) -> Job:
        """Asks a job to end, and returns it as it is then; it may take its grace to stop."""
        return read_job(self._json("POST", f"/api/v1/jobs/{quote(job_id, safe='')}/cancel"))

    def logs(self, job_id: JobId, *, tail: int | None = None) -> str:
        """What a job has printed so far, or the last lines of it."""
        query = "" if tail is None else f"?tail={tail}"
        reply = self._send("GET", f"/api/v1/jobs/{quote(job_id, safe='')}/logs{query}")
        return reply.content.decode("utf-8", "replace")

    def follow(self, job_id: JobId, *, tail: int | None = None) -> Iterator[str]:
        """What a job prints, line by line, until it ends."""
        query = "" if tail is None else f"&tail={tail}"
        path = f"/api/v1/jobs/{quote(job_id, safe='')}/logs?follow=true{query}"
        # A program may be silent for as long as it likes.
        patience = httpx.Timeout(self.settings.request_timeout, read=None)
        try:
            with self._client.stream("GET", path, timeout=patience) as reply:
                if not reply.is_success:
                    raise from_response(reply.status_code, reply.headers, reply.read())
                for line in reply.iter_lines():
                    yield line
        except httpx.TransportError as error:
            raise Unreachable(f"{self.settings.url} stopped answering: {error}") from error

    def explain(self, job_id: JobId) -> Explanation:
        """Why a job waits, when it will run, and what would make it fit."""
        path = f"/api/v1/jobs/{quote(job_id, safe='')}/explain"
        return read_explanation(self._json("GET", path))

    def nodes(self) -> list[Node]:
        """The nodes that jobs can run on, with their regions and what they have."""
        found = self._json("GET", "/api/v1/nodes")
        return [read_node(one) for one in found["nodes"]]

    def models(self) -> list[Model]:
        """Every model the server knows: its own with version and state, and its upstreams'."""
        listed = self._json("GET", "/v1/models")
        index = self._json("POST", "/v2/repository/index")
        own = {one["name"]: one for one in index}
        names = {one["id"]: one.get("owned_by") for one in listed["data"]}
        for name in own:
            names.setdefault(name, None)
        return [
            Model(
                name=name,
                version=own.get(name, {}).get("version") or None,
                state=own.get(name, {}).get("state"),
                reason=own.get(name, {}).get("reason") or None,
                owner=owner,
            )
            for name, owner in sorted(names.items())
        ]

    def model(self, name: str) -> ModelMetadata:
        """A model's inputs and outputs, as the Open Inference Protocol has them."""
        found = self._json("GET", f"/v2/models/{quote(name, safe='')}")
        return ModelMetadata(
            name=found["name"],
            versions=tuple(found.get("versions", ())),
            platform=found.get("platform", ""),
            inputs=tuple(_described(one) for one in found.get("inputs", ())),
            outputs=tuple(_described(one) for one in found.get("outputs", ())),
        )

    def infer(
        self,
        model: str,
        inputs: Mapping[str, TensorLike] | TensorLike,
        *,
        outputs: Sequence[str] | None = None,
        version: str | None = None,
        timeout: float | None = None,
    ) -> Inference:
        """Asks a model, wherever it runs.

        ``inputs`` maps names to tensors. A model with one input takes that tensor alone; then its name and type are
        asked for first. Python lists travel as JSON, NumPy arrays and ``bytes`` raw.

        :param outputs: the outputs that are wanted; all if absent.
        :param timeout: seconds after which nobody works on it any more.
        """
        if not isinstance(inputs, Mapping):
            inputs = self._named(model, inputs)
        headers, body = tensors.encode(inputs, outputs)
        path = f"/v2/models/{quote(model, safe='')}"
        if version is not None:
            path += f"/versions/{quote(version, safe='')}"
        reply = self._send("POST", f"{path}/infer", headers=headers, content=body, timeout=timeout)
        return tensors.decode(reply.headers, reply.content)

    def _named(self, model: str, value: TensorLike) -> dict[str, Tensor]:
        known = self.model(model)
        if len(known.inputs) != 1:
            names = ", ".join(f"`{one.name}`" for one in known.inputs)
            raise ValueError(f"`{model}` has the inputs {names}: give a mapping from names to tensors")
        only = known.inputs[0]
        return {only.name: tensors.tensor(value, only.datatype)}

    def _json(self, method: str, path: str, document: Any = None, *, patience: float = 0.0) -> Any:
        headers = {}
        content = None
        if document is not None:
            headers["content-type"] = "application/json"
            content = json.dumps(document, separators=(",", ":")).encode()
        reply = self._send(method, path, headers=headers, content=content, patience=patience)
        return reply.json()

    def _send(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        timeout: float | None = None,
        patience: float = 0.0,
    ) -> httpx.Response:
        said = dict(headers or {})
        if self.settings.region:
            said["x-kapok-region"] = self.settings.region
        allowed = self.settings.request_timeout + patience
        if timeout is not None:
            said["x-request-timeout-ms"] = str(max(1, round(timeout * 1000)))
            # The server's own word about it comes first.
            allowed = timeout + 5.0
        try:
            reply = self._client.request(method, path, headers=said, content=content, timeout=allowed)
        except httpx.TimeoutException as error:
            raise Timeout(f"{self.settings.url} did not answer within {allowed:g} s", status=408) from error
        except httpx.TransportError as error:
            raise Unreachable(f"{self.settings.url} cannot be asked: {error}") from error
        if reply.is_success:
            return reply
        raise from_response(reply.status_code, reply.headers, reply.content)


def _described(one: Mapping[str, Any]) -> Input:
    return Input(name=one["name"], datatype=one["datatype"], shape=tuple(one["shape"]))
