"""Fixtures of this room's tests."""

import socket

import pytest


@pytest.fixture
def free_port() -> int:
    """A port that nobody listens on, and the one above it."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port
