"""Only what pyproject.toml cannot say: the job notebooks of nbs/jobs are copied into the wheel as trademl/jobs.

An editable install copies nothing: `trademl.runs.find_job` looks into the clone first.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithJobs(build_py):
    """`build_py`, and the job notebooks."""

    def run(self):
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib, "trademl", "jobs")
        target.mkdir(parents=True, exist_ok=True)
        for notebook in sorted(Path("nbs", "jobs").glob("*.ipynb")):
            shutil.copyfile(notebook, target / notebook.name)


setup(cmdclass={"build_py": BuildWithJobs})
