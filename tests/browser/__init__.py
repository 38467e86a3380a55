"""The page in a real browser: `make prove-page` installs what these tests need, and runs them with Debian's chromium."""
