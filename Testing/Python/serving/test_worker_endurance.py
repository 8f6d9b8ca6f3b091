"""A worker that is asked again and again needs no more memory and no more open files than at first."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bundles import write_tiny_bundle
from usema.serving.client import WorkerClient
from usema.volumes.volume import Geometry
from workers import last_event, resources_of

RUNS, WARM = 20, 8


@pytest.mark.slow(3)
@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="memory and files of a process are read from /proc")
def test_memory_and_open_files_stay_flat(tmp_path):
    model = write_tiny_bundle(tmp_path / "tiny").path
    voxels = np.random.default_rng(0).normal(size=(24, 32, 24)).astype(np.float32)
    np.save(tmp_path / "in.npy", voxels)
    geometry = Geometry(voxels.shape[::-1], (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1, 0, 0, 0, 1, 0, 0, 0, 1)).to_dict()
    request = {"model": str(model), "device": "cpu", "output": str(tmp_path), "probabilities": True}
    request["inputs"] = [{"array": str(tmp_path / "in.npy"), "geometry": geometry}]
    client, seen = WorkerClient(environment={"OMP_NUM_THREADS": "1"}), []  # more make so small a network slower
    client.start()
    try:
        pid = last_event(client, client.request("hello"))["pid"]
        for _ in range(RUNS):
            event = last_event(client, client.request("segment", **request))
            assert event["event"] == "result", event
            seen.append(resources_of(pid))
    finally:
        client.stop()
    (bytes_before, files_before), (bytes_after, files_after) = seen[WARM], seen[-1]
    assert files_after == files_before
    assert bytes_after - bytes_before < 8 * 2**20  # one run's arrays are 3 MB
