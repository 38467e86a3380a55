"""Image workers: processes that decode images and can be killed."""

from service.workers.pool import ImageWorkers, WorkerLimits, start_worker_server

__all__ = ["ImageWorkers", "WorkerLimits", "start_worker_server"]
