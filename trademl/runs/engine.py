"""papermill's engine, sparing with the disk. Only `run_job` imports this module, which imports papermill."""

import math
import time

from papermill.engines import NBClientEngine, NotebookExecutionManager, papermill_engines

NAME = "trademl"
PAUSE_S = 1.0  # between two writes of a notebook that is being executed


class _Sparing(NotebookExecutionManager):
    """papermill writes the whole notebook before and after every cell, which takes longer than many a cell."""

    _written_s, _is_over = -math.inf, False

    def save(self, **changed):
        if self._is_over or time.monotonic() - self._written_s >= PAUSE_S:
            super().save(**changed)
            self._written_s = time.monotonic()

    def notebook_complete(self, **changed):
        self._is_over = True
        super().notebook_complete(**changed)


class SparingEngine(NBClientEngine):
    """Executes as papermill's own does, and writes the notebook at its start, at its end and at most once a second between them."""

    @classmethod
    def execute_notebook(cls, nb, kernel_name, output_path=None, progress_bar=True, log_output=False, autosave_cell_every=30, **options):
        manager = _Sparing(nb, output_path, log_output, progress_bar, autosave_cell_every)
        manager.notebook_start()
        try:
            cls.execute_managed_notebook(manager, kernel_name, log_output=log_output, **options)
        finally:
            manager.cleanup_pbar()
            manager.notebook_complete()
        return manager.nb


papermill_engines.register(NAME, SparingEngine)
