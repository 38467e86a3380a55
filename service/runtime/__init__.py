"""What computes captions: the model thread, admission, checkpoints, and the engine that connects them."""

import model  # isort: skip  # noqa: F401  before torch is imported

from service.runtime.admission import Admission, AdmissionLimits, Ticket
from service.runtime.checkpoints import blank_view, load_captioner, load_captioners
from service.runtime.engine import ClientLeft, Engine, PreparedImage
from service.runtime.jobs import Job
from service.runtime.scheduler import Scheduler, SchedulerLimits, Unserved

__all__ = [
    "Admission",
    "AdmissionLimits",
    "ClientLeft",
    "Engine",
    "Job",
    "PreparedImage",
    "Scheduler",
    "SchedulerLimits",
    "Ticket",
    "Unserved",
    "blank_view",
    "load_captioner",
    "load_captioners",
]
