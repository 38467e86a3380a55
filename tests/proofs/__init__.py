"""Longer proofs of the service, on loopback and bounded: `make prove-service`."""
