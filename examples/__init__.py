"""Cross-attention as runnable code: small examples by hand, and a small translation network."""

import model  # isort: skip  # noqa: F401  before torch is imported
