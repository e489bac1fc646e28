import asyncio
import os
import signal
import time

import pytest

import kapok_sdk
from kapok_sdk import AsyncScheduler, JobFailed, Scheduler

SHELL = ["sh", "-c"]


def eventually(ask):
    """The first answer that is something; asks for half a minute."""
    end = time.monotonic() + 30
    while not (answer := ask()):
        assert time.monotonic() < end, "not within 30 s"
        time.sleep(0.02)
    return answer


def test_a_process_runs_to_its_end_and_its_output_is_kept(sched):
    job_id = sched.submit(command=[*SHELL, "echo one; echo two $WORD"], env={"WORD": "three"}, name="echo")
    job = sched.wait(job_id, timeout=60)
    assert (job.state, job.exit_code, job.name) == ("Succeeded", 0, "echo")
    assert job.placements[0].region == "gz-nansha"
    assert job.condition("Finished").status is True
    assert sched.logs(job_id).splitlines() == ["one", "two three"]
    assert sched.logs(job_id, tail=1).splitlines() == ["two three"]
    assert job_id in [one.id for one in sched.jobs(state="Succeeded")]


def test_output_is_followed_until_the_end(sched):
    job_id = sched.submit(command=[*SHELL, "echo one; sleep 0.2; echo two"])
    assert list(sched.follow(job_id)) == ["one", "two"]


def test_a_process_that_fails_is_reported_with_its_code(sched):
    job_id = sched.submit(command=[*SHELL, "exit 3"])
    with pytest.raises(JobFailed, match="failed") as caught:
        sched.wait(job_id, timeout=60)
    assert caught.value.job.exit_code == 3


def test_a_process_that_is_killed_is_noticed_and_reported(sched):
    job_id = sched.submit(command=[*SHELL, "echo $$; exec sleep 600"])
    pid = int(eventually(lambda: sched.logs(job_id)))
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(JobFailed, match="9|KILL") as caught:
        sched.wait(job_id, timeout=60)
    assert (caught.value.job.state, caught.value.job.signal) == ("Failed", signal.SIGKILL)


def test_a_timeout_cancels(sched):
    job_id = sched.submit(command=["sleep", "600"], timeout=1, grace=1)
    with pytest.raises(JobFailed) as caught:
        sched.wait(job_id, timeout=60)
    job = caught.value.job
    assert (job.state, job.reason) == ("Cancelled", "MaximumExecutionTimeExceeded")


def test_a_job_is_cancelled(sched):
    job_id = sched.submit(command=["sleep", "600"])
    eventually(lambda: sched.job(job_id).state == "Running")
    assert sched.cancel(job_id).state in ("Stopping", "Cancelled")
    assert sched.wait(job_id, timeout=60, check=False).state == "Cancelled"
    assert sched.cancel(job_id).state == "Cancelled", "it stays as it is"


def test_a_region_that_does_not_exist_is_an_error_that_lists_those_that_do(sched):
    with pytest.raises(kapok_sdk.InvalidRequest, match=r"`atlantis`.*`gz-nansha`") as caught:
        sched.submit(command=["true"], region="atlantis")
    assert "atlantis" in caught.value.message
    with Scheduler(region="atlantis") as lost, pytest.raises(kapok_sdk.InvalidRequest):
        lost.submit(model="identity")


def test_what_is_no_job_is_refused_with_the_field(sched):
    with pytest.raises(kapok_sdk.InvalidRequest, match="spec.gang|gang"):
        sched.submit(command=["true"], gang=0)
    with pytest.raises(kapok_sdk.NotFound, match="no-such-job"):
        sched.job("no-such-job")


def test_nodes_say_where_they_are(sched):
    (node,) = sched.nodes()
    assert node.region == "gz-nansha"


def test_a_job_that_waits_is_explained(sched):
    job_id = sched.submit(command=["true"], cpu=100_000)
    told = sched.explain(job_id)
    assert told.text
    sched.cancel(job_id)
    assert sched.dry_run(command=["true"]).raw


def test_the_asynchronous_twin_does_the_same():
    async def run():
        async with AsyncScheduler(region="gz-nansha") as sched:
            ids = [await sched.submit(command=[*SHELL, f"echo {number}"]) for number in range(3)]
            jobs = await asyncio.gather(*(sched.wait(job_id, timeout=60) for job_id in ids))
            return [job.state for job in jobs], [(await sched.logs(job_id)).strip() for job_id in ids]

    assert asyncio.run(run()) == (["Succeeded"] * 3, ["0", "1", "2"])
