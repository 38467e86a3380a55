"""HTTP: connections, bodies, negotiation, security, responses, and the APIs (dialects) over one engine."""
