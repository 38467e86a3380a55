"""Image workers: processes that decode images and can be killed."""

import model  # isort: skip  # noqa: F401  before torch is imported

from service.workers.pool import ImageWorkers, WorkerLimits, start_worker_server

__all__ = ["ImageWorkers", "WorkerLimits", "start_worker_server"]
