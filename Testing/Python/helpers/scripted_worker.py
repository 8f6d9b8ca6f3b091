"""A worker that speaks the protocol but computes nothing, for faults that the real one cannot be brought to.

    python scripted_worker.py FAULT

Answers hello and sends progress; what comes then depends on FAULT.
"""

import json
import os
import sys
import time
from pathlib import Path

# What a fault needs is imported where it needs it: a script that only answers is there at once.


def send(request, event, **fields):
    print(json.dumps({"id": request["id"], "event": event, **fields}), flush=True)


def warnings(request):
    """What the engine says of the volume itself."""
    import numpy as np
    from usema.inference.checks import input_warnings
    from usema.models.bundle import read_bundle
    from usema.volumes.geometry import Geometry

    metadata, given = read_bundle(request["model"]).metadata, request["inputs"][0]
    voxels = np.load(given["array"])
    return input_warnings(metadata, Geometry.from_dict(given["geometry"]), (float(voxels.min()), float(voxels.max())))


def result(request, **changes):
    import numpy as np
    from usema.models.bundle import read_bundle

    shape = np.load(request["inputs"][0]["array"]).shape
    labels = np.zeros(changes.pop("shape", shape), "uint8")
    labels[1:3, 2:5, 2:6] = 1
    path = os.path.join(request["output"], "labels.npy")
    np.save(path, labels.astype(changes.pop("dtype", "uint8")))
    metadata = read_bundle(request["model"]).metadata
    own = [label.name for label in metadata.labels if label.value not in metadata.region_values]  # as of a crop
    answer = {
        "labels": path,
        "names": request["labels"] or own,
        "probabilities": None,
        "geometry": request["inputs"][0]["geometry"],
        "provenance": {"model": "hippocampus-mr", "device": "cpu", "attention": "none (a script)"},
        "warnings": warnings(request),
        "max_foreground_probability": 0.9,
        "seconds": 0.1,
    }
    send(request, "result", **{**answer, **changes})


def segment(request, fault):
    send(request, "progress", done=0, total=4, seconds_left=None)
    send(request, "progress", done=1, total=4, seconds_left=2.0)
    if fault == "preview":
        import numpy as np

        path = os.path.join(request["output"], "preview.npy")
        np.save(path, np.ones(np.load(request["inputs"][0]["array"]).shape, np.uint8))
        send(request, "preview", labels=path)
        send(request, "progress", done=2, total=4, seconds_left=1.0)
        while not os.path.exists(os.path.join(request["output"], "go on")):
            time.sleep(0.02)
    if fault in ("none", "preview"):
        result(request, **({"seconds_by_speed": {"exact": 84.0, "fast": 30.0}} if fault == "preview" else {}))
    elif fault == "waits":
        pass  # until it is cancelled
    elif fault == "hangs":
        time.sleep(600)
    elif fault == "dies":
        print("the last words", file=sys.stderr, flush=True)
        os._exit(7)
    elif fault == "memory":
        send(request, "error", code="memory", message="Memory is too small.", hint="Crop it.", detail="MemoryError")
    elif fault == "shape":
        result(request, shape=(2, 2, 2))
    elif fault == "floats":
        result(request, dtype="float32")
    elif fault == "no numbers":
        send(request, "progress", done=2)
        time.sleep(600)
    elif fault == "no file":
        result(request, labels=os.path.join(request["output"], "nothing.npy"))
    elif fault == "garbage":
        print("{[ this is no JSON", flush=True)
        print(json.dumps({"id": 9999, "event": "result"}), flush=True)
        print(json.dumps(["a list"]), flush=True)
        sys.stdout.buffer.write(b"\xff\xfe\x00\n")
        sys.stdout.flush()
        result(request)


def adapt(request, fault):
    """Learning from corrections: every label grows by a voxel along x, where nothing is."""
    import numpy as np
    from usema.models.bundle import read_bundle
    from usema.volumes.margins import Margins, PlacedMargins

    seconds = 4000.0 if fault == "takes long" else 12.0
    send(request, "estimate", seconds=seconds, memory_bytes=2**20, trained=1000)
    if request["seconds_allowed"] < seconds:
        send(request, "error", code="input", message="It would take 67 min.", hint="Allow more time.", detail="")
        return
    for phase in ("looking", "learning", "propagating", "segmenting"):
        send(request, "progress", phase=phase, done=1, total=2, seconds_left=6.0)
        if fault == f"waits while {phase}":
            return  # until it is cancelled
        if fault == f"dies while {phase}":
            os._exit(7)
    before = np.load(request["corrections"]["labels"])
    labels = before if fault == "agrees" else np.where(before > 0, before, np.roll(before, 1, axis=2))
    path = os.path.join(request["output"], "labels.npy")
    np.save(path, labels)
    values = [0, *(label.value for label in read_bundle(request["model"]).metadata.labels)]
    parts = {v: PlacedMargins(np.where(labels == v, 48, -48).astype(np.int8), (0, 0, 0)) for v in values}
    margins, delta = (os.path.join(request["output"], name) for name in ("margins.txt", "delta.safetensors"))
    Path(margins).write_text(Margins(labels.shape, parts).to_text())
    Path(delta).write_bytes(b"what was learned")
    way = "unchanged" if fault == "unchanged" else {"auto": "propagated"}.get(request["way"], request["way"])
    question = "It changes much far away. Keep it?" if fault == "asks" else ""
    adaptation = {"way": way, "slices": request["corrections"]["slices"], "question": question, "message": "Learned."}
    provenance = {"model": "hippocampus-mr", "adaptation": way, "adaptedFrom": "axis 0: 1"}
    send(
        request, "result", labels=path, margins=margins, delta=delta, adaptation=adaptation, provenance=provenance,
        warnings=[],
    )  # fmt: skip


def main():
    fault = sys.argv[1]
    if fault == "silent":
        time.sleep(600)
    for line in sys.stdin:
        request = json.loads(line)
        if request["command"] == "hello":
            send(request, "hello", device="cpu", devices=["cpu"], attention="none (a script)", memory_bytes=2**33)
        elif request["command"] == "segment":
            segment(request, fault)
        elif request["command"] == "adapt":
            adapt(request, fault)
        elif request["command"] == "cancel":
            target = {"id": request["target"]}
            send(target, "error", code="cancelled", message="Stopped.", hint="", detail="")
        elif request["command"] == "quit":
            break


if __name__ == "__main__":
    main()
