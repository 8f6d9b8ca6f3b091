"""Runs a function as a user who owns nothing here and has no name, in a process of its own."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import pytest

NOBODY = 54321  # no user of any system has this number


def as_other_user(work: Callable[[], Any], **environment: str | None) -> Any:
    """What ``work`` returns, by way of JSON; None as a value of the environment takes a variable away."""
    if not hasattr(os, "fork") or os.geteuid() != 0:
        pytest.skip("only root can become another user")
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            for name, value in environment.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            try:
                answer = {"result": work()}
            except BaseException as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            os.write(write, json.dumps(answer).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as stream:
        answer = json.loads(stream.read() or b'{"error": "it ended without a word"}')
    os.waitpid(child, 0)
    assert "error" not in answer, answer["error"]
    return answer["result"]
