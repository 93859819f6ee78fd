"""Only what pyproject.toml cannot say: notebooks of nbs/jobs and nbs/explore and settings.ini go into the wheel, nbdev's index does not.

An editable install copies nothing: `trademl.runs.find_job` and `trademl.settings.shipped_file` look into the clone.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithJobs(build_py):
    """`build_py`, the notebooks that run as they are and the default settings; without what only nbdev reads."""

    def find_package_modules(self, package, package_dir):
        """All modules but `_modidx`, which `nbdev-update` reads in a clone and nothing else ever imports."""
        return [found for found in super().find_package_modules(package, package_dir) if found[1] != "_modidx"]

    def run(self):
        super().run()
        if self.editable_mode:
            return
        for folder, inside in (("jobs", "jobs"), ("explore", "explore/notebooks")):
            target = Path(self.build_lib, "trademl", inside)
            target.mkdir(parents=True, exist_ok=True)
            for notebook in sorted(Path("nbs", folder).glob("*.ipynb")):
                shutil.copyfile(notebook, target / notebook.name)
        shutil.copyfile("settings.ini", Path(self.build_lib, "trademl", "settings.ini"))


setup(cmdclass={"build_py": BuildWithJobs})
