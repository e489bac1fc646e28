"""kapok from Python: submit jobs and models, follow them, and ask the models.

>>> from kapok_sdk import Scheduler
>>> sched = Scheduler(region="gz-nansha", priority="realtime", qos_level=3)
>>> job_id = sched.submit(model="resnet50-v2", batch_size=64, timeout=300)
"""

from .aio import AsyncScheduler
from .client import Scheduler
from .errors import (
    ApiError,
    Busy,
    Conflict,
    Denied,
    InvalidRequest,
    JobFailed,
    KapokError,
    NotFound,
    ServerError,
    Timeout,
    Unreachable,
    WaitTimeout,
)
from .tensors import Inference, Tensor, TensorLike, tensor
from .types import (
    Condition,
    Explanation,
    Input,
    Job,
    JobFields,
    JobId,
    Model,
    ModelMetadata,
    Node,
    Placement,
    Priority,
    Settings,
)

__all__ = [
    "ApiError",
    "AsyncScheduler",
    "Busy",
    "Condition",
    "Conflict",
    "Denied",
    "Explanation",
    "Inference",
    "Input",
    "InvalidRequest",
    "Job",
    "JobFailed",
    "JobFields",
    "JobId",
    "KapokError",
    "Model",
    "ModelMetadata",
    "Node",
    "NotFound",
    "Placement",
    "Priority",
    "Scheduler",
    "ServerError",
    "Settings",
    "Tensor",
    "TensorLike",
    "Timeout",
    "Unreachable",
    "WaitTimeout",
    "tensor",
]
