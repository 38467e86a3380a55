"""HTTP: connections, bodies, negotiation, security, responses, and the APIs (dialects) over one engine."""

import model  # isort: skip  # noqa: F401  before torch is imported
