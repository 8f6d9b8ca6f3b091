"""TotalSegmentator's tasks from its zips: what each finds, against nnU-Net and what its program does around that."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import totalsegmentator_run
from nnunet_models import zipped
from totalsegmentator_models import ct, make, public
from totalsegmentator_reference import segmented
from usema import converters
from usema.errors import BundleError, InputError
from usema.inference.predictor import Predictor
from usema.inference.rough import RoughResults
from usema.models.bundle import read_bundle
from usema.volumes.volume import Geometry, Volume, read_volume

pytestmark = pytest.mark.slow(1)  # trains the networks of whole tasks

FINE = ("total-1-5mm", "kidney-cysts", "headneck-muscles")
BOX = (slice(8, 22), slice(22, 50), slice(26, 60))


@pytest.fixture(scope="module")
def weights(tmp_path_factory, data):
    """The folder of a model's datasets, trained when they are first asked for."""
    root = tmp_path_factory.mktemp("weights")

    def of(name: str):
        model = public(name)
        for other in model.needs:
            of(other.removeprefix("totalsegmentator-"))
        for dataset in model.recipe["datasets"]:
            if not (root / dataset["folder"]).exists():
                folds = (0, 1) if model.recipe["folds"] == "all" else (0,)
                outputs = 2 if "role" in dataset else 0
                make(root, data, model, dataset, folds, outputs)
        return root

    return of


@pytest.fixture(scope="module")
def bundle(weights, tmp_path_factory):
    """A model's bundle, made from its publisher's zips; also under its name on the shelf, for those that need it."""
    root, made = tmp_path_factory.mktemp("bundles"), {}

    def of(name: str):
        name = name.removeprefix("totalsegmentator-")
        if name not in made:
            folder = weights(name)
            zips = []
            for dataset in public(name).recipe["datasets"]:
                file = root / f"{dataset['folder']}.zip"
                zips.append(file if file.exists() else zipped(folder / file.stem, file, f"{file.stem}/"))
            made[name] = converters.convert_public(zips, public(name).name, root / name, converters.Work())
        return read_bundle(made[name].path)

    return of


@pytest.fixture(scope="module")
def volume(data, tmp_path_factory):
    """Turned, flipped, and with so much air around that a crop takes some away."""
    file = tmp_path_factory.mktemp("ct") / "ct.nii.gz"
    sitk.WriteImage(ct(data, BOX, air=8), str(file))
    return file


@pytest.fixture(scope="module")
def small(data, tmp_path_factory):
    """A quarter of it, for tasks with small voxels."""
    file = tmp_path_factory.mktemp("ct") / "small.nii.gz"
    sitk.WriteImage(ct(data, (BOX[0], slice(26, 40), slice(30, 47)), air=4), str(file))
    return file


def same(ours: np.ndarray, theirs: np.ndarray, least_labels: int = 2) -> None:
    assert len(np.unique(theirs)) > least_labels, "a model that finds nothing proves nothing"
    assert (ours == theirs).mean() > 0.999
    seen = (ours > 0) | (theirs > 0)
    assert (ours == theirs)[seen].mean() > 0.99


@pytest.mark.parametrize(
    "name",
    ["total-3mm", "total-1-5mm", "body-6mm", "kidney-cysts", "pleural-pericard-effusion", "headneck-muscles"],
)
def test_a_task_finds_what_its_publishers_program_finds(name, weights, bundle, volume, small):
    volume = small if name in FINE else volume
    theirs = segmented(volume, weights(name), name)
    ours = Predictor(bundle(name), "cpu", bundle).segment(read_volume(volume)).labels
    same(ours, theirs, 1)


def test_a_crop_inside_a_crop(weights, bundle, data, tmp_path):
    file = tmp_path / "ct.nii.gz"
    sitk.WriteImage(ct(data, (slice(10, 20), slice(24, 36), slice(50, 62)), air=3), str(file))
    theirs = segmented(file, weights("teeth"), "teeth")
    result = Predictor(bundle("teeth"), "cpu", bundle).segment(read_volume(file))
    same(result.labels, theirs)
    assert result.provenance["regionFoundBy"].startswith("totalsegmentator-craniofacial-structures ")


def test_only_some_structures_run_only_their_parts_in_their_box(weights, bundle, volume):
    weights("total-6mm")
    theirs = segmented(volume, weights("total-1-5mm"), "total-1-5mm", ("liver", "spleen"), "total-6mm")
    predictor, tiles = Predictor(bundle("total-1-5mm"), "cpu", bundle), []
    result = predictor.segment(
        read_volume(volume), labels=["Liver, spleen"], progress=lambda done, total, left: tiles.append(total)
    )
    assert set(np.unique(result.labels)) <= {0, 1, 5}
    same(result.labels, theirs, 1)
    assert [label.name for label in result.model_labels] == ["Spleen", "Liver"]
    assert result.provenance["parts"] == "part1 (0)"
    assert result.provenance["labels"] == "Spleen, Liver"
    assert result.provenance["regionFoundBy"].startswith("totalsegmentator-total-6mm ")


def test_only_some_structures_without_the_model_that_finds_them(weights, bundle, volume):
    def not_here(name: str):
        raise BundleError(f"{name} is not here.")

    weights("total-6mm")
    predictor = Predictor(bundle("total-3mm"), "cpu", not_here)
    whole = predictor.segment(read_volume(volume)).labels
    some = predictor.segment(read_volume(volume), labels=["liver"])
    np.testing.assert_array_equal(some.labels, np.where(whole == 5, 5, 0))
    assert "regionFoundBy" not in some.provenance
    with pytest.raises(InputError, match=r"no label 'livre'.*Did you mean Liver\?"):
        predictor.segment(read_volume(volume), labels=["livre"])


def test_several_tasks_share_a_rough_result(bundle, small, monkeypatch):
    loaded = []

    def find(name: str):
        loaded.append(name)
        return bundle(name)

    rough, computed = RoughResults(), []
    original = Predictor._find
    monkeypatch.setattr(
        Predictor, "_find", lambda self, *rest: computed.append(self.metadata.name) or original(self, *rest)
    )
    for name in ("kidney-cysts", "pleural-pericard-effusion"):
        Predictor(bundle(name), "cpu", find, rough).segment(read_volume(small))
    assert computed.count("totalsegmentator-total-6mm") == 1
    changed = read_volume(small)
    changed = replace(changed, array=np.where(changed.array > 0, changed.array + 1, changed.array))
    Predictor(bundle("kidney-cysts"), "cpu", find, rough).segment(changed)
    assert computed.count("totalsegmentator-total-6mm") == 2


def resident() -> int:
    """Bytes of this process in main memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux tells")
def test_memory_does_not_grow_with_the_number_of_labels(bundle, data):
    """118 classes on 200 x 200 x 200 voxels take 3.8 GB in single precision."""
    piece = sitk.GetArrayFromImage(sitk.ReadImage(str(data / "volumes/body_ct/example_ct_sm.nii.gz")))
    array = np.tile(piece, (7, 2, 2))[:200, :200, :200]
    large = Volume(array, Geometry((200,) * 3, (1.5,) * 3, (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1)))
    predictor, stop, seen = Predictor(bundle("total-6mm"), "cpu"), threading.Event(), []

    def watch():
        while not stop.wait(0.005):
            seen.append(resident())

    watcher = threading.Thread(target=watch)
    before = resident()
    watcher.start()
    try:
        found = predictor.segment(large).labels
    finally:
        stop.set()
        watcher.join()
    assert found.any()
    assert found.dtype == np.uint8
    assert max(seen) - before < 50 * array.size  # a tenth of all classes


def test_bodies_of_vertebrae_only_say_where_vertebrae_may_stay(bundle, small):
    described = bundle("vertebrae-pp-refined").metadata
    assert [part["name"] for part in described.parts] == ["part1", "bodies"]
    plain = Predictor(bundle("vertebrae-pp"), "cpu").segment(read_volume(small)).labels
    bodies = Predictor(bundle("vertebrae-body"), "cpu").segment(read_volume(small)).labels
    refined = Predictor(bundle("vertebrae-pp-refined"), "cpu").segment(read_volume(small)).labels
    assert refined.any()
    assert (refined[bodies != 1] == 0).all()
    kept = (plain > 0) & (bodies == 1)
    np.testing.assert_array_equal(refined[kept], plain[kept])
    assert set(np.unique(refined)) <= set(range(25))


def test_weights_of_another_task_are_refused(weights, tmp_path):
    folder = weights("total-6mm") / public("total-6mm").recipe["datasets"][0]["folder"]
    task = public("body-6mm").recipe["datasets"][0]
    copy = tmp_path / task["folder"]
    shutil.copytree(next(folder.glob("nnUNet*")), copy / task["training"])
    with pytest.raises(BundleError, match=r"finds 117 labels.*holds the weights of another task"):
        converters.convert(copy, tmp_path / "model", ["totalsegmentator-body-6mm"])
    assert not (tmp_path / "model").exists()


# Against the package itself: name of the model -> its task and options there.
PACKAGE = {
    "total-6mm": {"task": "total", "fastest": True},
    "total-3mm": {"task": "total", "fast": True},
    "total-1-5mm": {"task": "total"},
    "body-6mm": {"task": "body", "fast": True},
    "kidney-cysts": {"task": "kidney_cysts"},
    "pleural-pericard-effusion": {"task": "pleural_pericard_effusion"},
    "headneck-muscles": {"task": "headneck_muscles"},
    "vertebrae-pp": {"task": "vertebrae_pp"},
    "vertebrae-pp-refined": {"task": "vertebrae_pp_refined"},
    "teeth": {"task": "teeth"},
    "total-1-5mm only": {"task": "total", "roi_subset": ["lung_lower_lobe_right", "rib_left_8"]},
}


@pytest.fixture(scope="module")
def theirs(weights, data, tmp_path_factory):
    """What the package finds in a small volume, all of it in one process: (the volume, name -> label map)."""
    if importlib.util.find_spec("totalsegmentator") is None:
        pytest.skip("the package TotalSegmentator is not here (pip install --no-deps TotalSegmentator)")
    folder = tmp_path_factory.mktemp("package")
    sitk.WriteImage(ct(data, (slice(10, 20), slice(24, 40), slice(42, 60)), air=4), str(folder / "ct.nii.gz"))
    jobs = []
    for name, options in PACKAGE.items():  # the first is the finder of "only"
        root = weights(name.partition(" ")[0])
        jobs.append({"input": str(folder / "ct.nii.gz"), "output": str(folder / f"{name}.nii.gz"), "options": options})
    (folder / "jobs.json").write_text(json.dumps(jobs))
    command = [sys.executable, totalsegmentator_run.__file__, str(root), str(folder / "jobs.json")]
    subprocess.run(command, check=True)
    return folder / "ct.nii.gz", lambda name: sitk.GetArrayFromImage(sitk.ReadImage(str(folder / f"{name}.nii.gz")))


@pytest.mark.parametrize("name", PACKAGE)
def test_a_task_finds_what_the_package_finds(name, theirs, bundle):
    file, found = theirs
    model = bundle(name.partition(" ")[0])
    only = PACKAGE[name].get("roi_subset", ())
    ours = Predictor(model, "cpu", bundle).segment(read_volume(file), labels=only).labels
    same(ours, found(name), 1)
