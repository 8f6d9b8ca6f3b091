"""What every test may use: the engine on the path, and the real volumes."""

from __future__ import annotations

import gc
import itertools
import math
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "USEMASegmentation"), str(ROOT / "Testing" / "Python" / "helpers")]


# What is expected below was computed by PyTorch, and the tests are to be the same where OpenVINO is not installed;
# test_cpu_engine.py lets it be chosen.
os.environ.setdefault("USEMA_CPU_BACKEND", "pytorch")

# Of several processes, each gets its share of the cores, and so do those that it starts: with more threads than cores,
# a small network spends most of its time waiting.
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    share = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, share)))

SLOW_SECONDS = 1200  # a slow test's limit where it has none of its own; others have that of pyproject.toml


def pytest_configure(config):
    """Files go to xdist's processes in the order below; by itself it takes those of many tests first, and has one
    process wait for a single long test of the other at the end."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Slow tests run last: whoever waits for a mistake hears of most of them within minutes. Of those, files that take
    long come first, so that two processes end at about the same time."""
    slow = [item for item in items if item.get_closest_marker("slow")]
    seconds: dict[Path, float] = {}
    for item in slow:
        seconds[item.path] = seconds.get(item.path, 0) + sum(item.get_closest_marker("slow").args or (10,))
    items.sort(key=lambda item: -seconds[item.path] if item.get_closest_marker("slow") else -math.inf)
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_SECONDS))


def pytest_collection_finish():
    """What was imported stays: the collector of garbage need not look through it again and again."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter):
    """Counts what the model store had to cope with."""
    counts = {
        outcome: sum("fault" in getattr(report, "keywords", ()) for report in terminalreporter.getreports(outcome))
        for outcome in ("passed", "failed", "skipped")
    }
    if any(counts.values()):
        words = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
        terminalreporter.write_line(f"Faults of servers, networks, disks and files that the model store met: {words}")


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def stores(tmp_path_factory) -> Iterator[Path]:
    """Places for a store each. pytest would look through all earlier ones for the next number."""
    folder = tmp_path_factory.mktemp("stores")
    return (folder / str(number) for number in itertools.count())


@pytest.fixture(autouse=True)
def empty_store(stores, monkeypatch) -> Path:
    """A model store of the test's own, so that nothing depends on what this user has downloaded; its folder."""
    folder = next(stores)
    folder.mkdir()
    monkeypatch.setenv("USEMA_MODELS", str(folder / "Models"))
    monkeypatch.setenv("USEMA_SETTINGS", str(folder / "settings.json"))
    monkeypatch.setenv("USEMA_CACHE", str(folder / "Compiled"))
    return folder


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_arrives():
    """Also where the tests run in the background of a shell."""
    from ignored_signals import heard

    with heard(signal.SIGINT):
        yield


@pytest.fixture(scope="session")
def small_volume(tmp_path_factory) -> Path:
    """The middle of the sample, which the tiny models of the tests segment in one tile of 24 x 32 x 24 voxels."""
    import SimpleITK as sitk
    from usema.resources import sample_volume

    path = tmp_path_factory.mktemp("small") / "hippocampus_149.nii.gz"
    sitk.WriteImage(sitk.ReadImage(str(sample_volume()))[4:28, 8:40, 4:28], str(path))
    return path


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """A small untrained one, a folder that no test changes."""
    from bundles import write_tiny_bundle

    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny").path


@pytest.fixture(scope="session")
def discs(tmp_path_factory) -> str:
    """The path of a model for images that counts discs; no test changes it."""
    from image_models import write_disc_counter

    return write_disc_counter(tmp_path_factory.mktemp("models") / "discs")


@pytest.fixture(scope="session")
def eight_tiles(data):
    """A corner of a real volume, which the tiny models of the tests segment in 2 x 2 x 2 tiles."""
    from dataclasses import replace

    from usema.volumes.volume import Volume, read_volume

    whole = read_volume(data / "nnUNet_raw/Dataset004_Hippocampus/imagesTr/hippocampus_003_0000.nii.gz")
    return Volume(whole.array[:28, :40, :28], replace(whole.geometry, size=(28, 40, 28)))


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real labelled volumes that lies beside the repository."""
    folder = ROOT.parent / "shared" / "data"
    assert folder.is_dir(), f"the real volumes are missing: {folder}"
    return folder
