"""The contract of the two workers: every request is really made, and its answers are looked at."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from bundles import write_tiny_bundle
from contract_text import Recorded, message_lines
from model_shop import LICENCE, open_shop
from usema.serving import protocol, segmenting, storing
from usema.store import indexes
from usema.volumes.volume import Geometry


@pytest.fixture
def asked():
    """``asked(commands, command, *requests)``: the lines of a command's contract."""

    def ask(commands, command: str, *requests: dict) -> list[str]:
        events, read = [], set()
        for fields in requests or [{}]:
            request = Recorded(fields, id=1, command=command)
            events.append(commands.by_name[command](request, lambda **event: events.append(event), lambda: False))
            read |= request.read
        return list(message_lines(command, read, events))

    return ask


def test_the_worker_that_segments(promised, asked, tmp_path):
    model = str(write_tiny_bundle(tmp_path / "tiny").path)
    np.save(tmp_path / "input.npy", np.random.default_rng(0).integers(0, 99, (24, 32, 24), np.int16))
    geometry = Geometry((24, 32, 24), (1, 1, 1), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    inputs = [{"array": str(tmp_path / "input.npy"), "geometry": geometry.to_dict()}]
    request = {"model": model, "device": "cpu", "inputs": inputs, "output": str(tmp_path), "overlap": 0.0}
    commands = segmenting.Commands()
    lines = [f"# protocol {protocol.VERSION}; a command and the fields it looks at, its answers and their fields"]
    lines += asked(commands, "hello")
    lines += asked(commands, "load", {"model": model, "device": "cpu"})
    commands = segmenting.Commands()  # which has loaded nothing yet
    lines += asked(commands, "segment", request, {**request, "probabilities": True, "margins": True, "mirror": True})
    np.save(tmp_path / "corrected.npy", np.full((24, 32, 24), 2, np.uint8))
    corrections = {"labels": str(tmp_path / "corrected.npy"), "slices": [[0, 4], [0, 12], [0, 20]], "edited": None}
    learn = {**request, "corrections": corrections, "way": "learned"}
    adapt = asked(commands, "adapt", learn, {**learn, "way": "auto", "margins": True})
    lines += [line for line in adapt if not line.startswith("        provenance")]
    assert set(commands.by_name) == {line.partition(":")[0] for line in lines if line[0] not in " #"}
    promised("worker_messages", lines)


def test_the_worker_that_keeps_models(promised, asked, tmp_path):
    free = write_tiny_bundle(tmp_path / "free", name="free")
    bound = write_tiny_bundle(tmp_path / "bound", name="bound", licence=LICENCE)
    commands = storing.Commands()
    lines = [f"# protocol {protocol.VERSION}, python -m usema.serving.worker --store"]
    with open_shop(tmp_path / "shop") as shop:
        shop.offer("tiny")
        lines += [*asked(commands, "hello"), *asked(commands, "refresh")]
        lines += asked(commands, "download", {"name": "tiny", "version": "1.0.0"})
    lines += asked(commands, "look", {"file": str(free.path)})
    lines += asked(commands, "import", {"file": str(free.path)}, {"file": str(bound.path)})
    lines += asked(commands, "verify", {"path": str(free.path)})
    lines += asked(commands, "remove", {"name": "free", "version": "1.2.0"})
    assert set(commands.by_name) == {line.partition(":")[0] for line in lines if line[0] not in " #"}
    assert indexes.sources()
    promised("store_messages", lines)


def test_what_both_workers_share(promised, root):
    sent = [{"id": 1, "command": "sing"}, {"id": 2, "command": "cancel", "target": 9}, {"command": "hello"}]
    sent += [{"id": 3, "command": "hello"}]
    worker = subprocess.Popen(
        [sys.executable, "-u", "-m", "usema.serving.worker", "--store"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root / "USEMASegmentation",
    )  # fmt: skip
    with worker:
        worker.stdin.write("".join(json.dumps(one) + "\n" for one in sent).encode())
        worker.stdin.flush()
        answers = [json.loads(worker.stdout.readline()) for _ in range(3)]
        worker.stdin.write(b'{"id": 4, "command": "quit"}\n')
        worker.stdin.flush()
        assert worker.wait(30) == 0
    told = {answer["id"]: answer for answer in answers}
    lines = ["# On stdin and stdout, a JSON object a line. An answer repeats the request's id, null where it had none."]
    lines += [
        f"a command that is not known: {told[1]['event']}, {told[1]['code']}",
        f"a line without an id: {told[None]['event']}, {told[None]['code']}",
        *message_lines("any request", [], [told[1]]),
        "cancel: target, the id of a request; no answer of its own",
        "quit: no answer, the exit code is 0",
    ]
    assert told[3]["event"] == "hello"
    promised("worker_process", lines)
