"""The native API: /v1, with problems as RFC 9457 has them (docs/service.md)."""
