"""Real machines for the end-to-end tests: containers with systemd, sshd and a Docker daemon.

Imports nothing of the engine and, but for fixtures in tests/e2e, nothing outside the standard
library, so it runs before any virtual environment exists.
"""
