"""Run folders, progress and papermill: what a job leaves behind, shows on the way, and how it is started.

`RunFolder` is the folder, `Progress` writes events inside the job's kernel, `watch` shows them in the parent, `run_job` executes.
"""

from .folder import RunFolder, RunStatus, finish_stale
from .jobs import JobResult, Parameter, check_parameters, find_job, job_parameters, run_job, write_summary
from .progress import Pace, Progress, read_events, stage_seconds, watch

__all__ = [
    "JobResult",
    "Pace",
    "Parameter",
    "Progress",
    "RunFolder",
    "RunStatus",
    "check_parameters",
    "find_job",
    "finish_stale",
    "job_parameters",
    "read_events",
    "run_job",
    "stage_seconds",
    "watch",
    "write_summary",
]
