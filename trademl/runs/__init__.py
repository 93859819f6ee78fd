"""Run folders, progress and papermill: what a job leaves behind, shows on the way, and how it is started.

`RunFolder` is the folder, `Progress` writes events inside the job's kernel, `watch` shows them in the parent, `run_job` executes.
"""

from .by_hand import NotebookRun, enter_project, join_run
from .folder import RunFolder, RunStatus, finish_stale
from .jobs import JobResult, Parameter, check_parameters, find_job, job_parameters, run_job, write_summary
from .pace import Course, Pace
from .progress import Progress, read_events, stage_seconds, watch

__all__ = [
    "Course",
    "JobResult",
    "NotebookRun",
    "Pace",
    "Parameter",
    "Progress",
    "RunFolder",
    "RunStatus",
    "check_parameters",
    "enter_project",
    "find_job",
    "finish_stale",
    "job_parameters",
    "join_run",
    "read_events",
    "run_job",
    "stage_seconds",
    "watch",
    "write_summary",
]
