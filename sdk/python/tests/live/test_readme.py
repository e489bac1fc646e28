"""What the README prints runs as it is printed."""

from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[4]


def snippet(page):
    blocks = page.read_text().split("```python\n")[1:]
    found = [block.split("```")[0] for block in blocks if "Scheduler(" in block]
    assert found, f"{page} has lost its example"
    return found[0]


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "sdk" / "python" / "README.md"], ids=["root", "sdk"])
def test_the_example_submits_a_model_that_answers(page):
    code = snippet(page)
    for line in (
        'sched = Scheduler(region="gz-nansha", priority="realtime", qos_level=3)',
        'job_id = sched.submit(model="resnet50-v2", batch_size=64, timeout=300)',
    ):
        assert line in code
    image = np.zeros((1, 3, 224, 224), dtype=np.float32)
    names = {"image": image}
    exec(compile(code, str(page), "exec"), names)
    sched, job_id = names["sched"], names["job_id"]
    job = sched.job(job_id)
    assert job.ready
    assert job.placements[0].region == "gz-nansha"
    assert names["scores"].shape == (1, 1000)
    sched.cancel(job_id)
    sched.wait(job_id, timeout=60, check=False)
    sched.close()
