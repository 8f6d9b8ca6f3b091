"""One worker for all parts of an application: what each hears, and when the worker ends."""

from __future__ import annotations

import gc

import pytest
from usema.serving.client import WorkerClient
from usema.serving.sharing import WorkerHold
from workers import is_alive, python, wait_until

# Answers hello, "echo" at once and "hold" when it is cancelled.
OBLIGING = """
import json, os, sys
def say(id, event, **fields):
    print(json.dumps({"id": id, "event": event, **fields}), flush=True)
for line in sys.stdin:
    request = json.loads(line)
    if request["command"] == "hello":
        say(request["id"], "hello", pid=os.getpid())
    elif request["command"] == "echo":
        say(request["id"], "result", text=request["text"])
    elif request["command"] == "cancel":
        say(request["target"], "error", code="cancelled", message="Stopped.", hint="", detail="")
    elif request["command"] == "quit":
        break
"""


@pytest.fixture
def made():
    """The clients that were made."""
    return []


@pytest.fixture
def hold(made):
    """Makes holds on one worker."""

    def client():
        made.append(WorkerClient(python(OBLIGING)))
        return made[-1]

    holds = []

    def make(kind="test"):
        holds.append(WorkerHold(kind, client))
        return holds[-1]

    yield make
    for one in holds:
        one.release()
    assert not any(client.running for client in made)


def answer(hold: WorkerHold, request: int) -> dict:
    events = []
    wait_until(lambda: events.extend(hold.poll(request)) or events)
    return events[-1]


def test_two_parts_share_a_worker_and_each_hears_only_its_own(hold, made):
    first, second = hold(), hold()
    mine, other = first.request("echo", text="mine"), second.request("echo", text="other")
    assert len(made) == 1
    assert answer(first, mine)["text"] == "mine"
    wait_until(lambda: not made[0].busy or first.poll(mine))
    assert answer(second, other)["text"] == "other"
    assert first.hello == second.hello


def test_the_last_one_to_let_go_ends_the_worker_and_it_can_be_taken_again(hold, made):
    first, second = hold(), hold()
    answer(first, first.request("echo", text=""))
    answer(second, second.request("echo", text=""))
    pid = first.hello["pid"]
    first.release()
    first.release()
    assert is_alive(pid)
    second.release()
    wait_until(lambda: not is_alive(pid))
    assert answer(first, first.request("echo", text="again"))["text"] == "again"
    assert len(made) == 2


def test_a_hold_that_is_collected_lets_go(hold, made):
    def leave():
        temporary = WorkerHold("test", lambda: made.append(WorkerClient(python(OBLIGING))) or made[-1])
        answer(temporary, temporary.request("echo", text=""))
        temporary.request("hold")

    for _ in range(3):
        leave()
        gc.collect()
        assert not any(client.running for client in made)


def test_a_worker_that_another_waits_for_is_not_ended(hold):
    first, second = hold(), hold()
    waiting = first.request("hold")
    answer(second, second.request("echo", text=""))
    assert not second.stop()
    first.cancel(waiting)
    assert answer(first, waiting)["code"] == "cancelled"
    assert second.stop()
    assert answer(first, first.request("echo", text="a new one"))["text"] == "a new one"


def test_what_nobody_waits_for_any_more_does_not_keep_the_worker(hold):
    first, second = hold(), hold()
    answer(second, second.request("echo", text=""))
    forgotten = first.request("hold")
    first.forget(forgotten)
    assert second.stop()
    assert first.poll(forgotten) == []


def test_different_kinds_have_different_workers(hold, made):
    for kind in ("segment", "store"):
        one = hold(kind)
        answer(one, one.request("echo", text=""))
    assert len(made) == 2


def test_a_client_of_the_callers_own_is_ended_by_release_and_not_by_being_collected():
    client = WorkerClient(python(OBLIGING))
    hold = WorkerHold.of(client)
    answer(hold, hold.request("echo", text=""))
    del hold
    gc.collect()
    assert client.running
    hold = WorkerHold.of(client)
    hold.release()
    assert not client.running
