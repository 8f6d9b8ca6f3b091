"""For how long 3D Slicer's main thread is held while the panel segments a large volume: measured inside 3D Slicer.

    Slicer --additional-module-paths USEMASegmentation --python-script Testing/Benchmarks/main_thread_application.py

A body of ellipsoids, 700 x 512 x 512 voxels of int16, a tiny untrained model that sees voxels of 8 mm, and the panel:
volume chosen, *Segment* clicked, the result shown in the slice views; and once more, in the place of the first result,
after the user has painted. A timer of 5 ms tells the largest gap between two of its calls, by phase: on the clock, and
in processor seconds of the main thread, which other programs do not lengthen. The aim is 0.1 s.

    USEMA_SIZE="700 512 512"    voxels, z y x
    USEMA_VOLUME=FILE           in place of the body: that volume, interpolated to that size
    USEMA_MODEL=NAME            in place of the tiny model: one that is here, at the speed of USEMA_SPEED (exact)
    USEMA_NOISE=1               labels like noise, the worst for the arrays of the segments
    USEMA_WITHOUT_ENGINE=1      two smooth organs in place of what the engine finds (given_result.py)
    USEMA_REVIEW=1              Review and refine is opened when there is a result
    USEMA_SHOW3D=1              surfaces are shown before the result is replaced
    USEMA_DAY=1                 in place of the second result: what else a user does, from the slider to a saved scene
    USEMA_PROFILE=1             tell the calls that took longest
    USEMA_REPORT=FILE           write there what is printed
    USEMA_WRITE=1               append to results/main_thread.md
"""

from __future__ import annotations

import cProfile
import os
import pstats
import sys
import tempfile
import time
import traceback
from datetime import date
from pathlib import Path

import numpy as np
import qt
import SimpleITK as sitk
import slicer
from vtk.util.numpy_support import vtk_to_numpy

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "Testing/Python/helpers")]
RESULTS = Path(__file__).with_name("results") / "main_thread.md"
SIZE = tuple(map(int, os.environ.get("USEMA_SIZE", "700 512 512").split()))
NOISE, GIVEN, SURFACES, REVIEW, DAY = (
    bool(os.environ.get(f"USEMA_{name}")) for name in ("NOISE", "WITHOUT_ENGINE", "SHOW3D", "REVIEW", "DAY")
)
VOLUME, MODEL, SPEED = (os.environ.get(f"USEMA_{name}", "") for name in ("VOLUME", "MODEL", "SPEED"))
LONG = 0.05  # seconds of the processor, of which a profile is told
_TICK_MS = 5
_PATIENCE = 900  # seconds


def body(size: tuple[int, int, int], organs: int = 30) -> np.ndarray:
    """(z, y, x) int16: air, an elliptic trunk with thirty ellipsoids of other values in it, and noise."""
    random = np.random.default_rng(0)
    z, y, x = (np.linspace(-1, 1, length, dtype=np.float32) for length in size)
    voxels = np.full(size, -1000, np.int16)
    voxels[:, ((y[:, None] / 0.7) ** 2 + (x / 0.9) ** 2) < 1] = 0
    for _ in range(organs):
        centre, radius = random.uniform(-0.45, 0.45, 3), random.uniform(0.05, 0.3, 3)
        inside = ((z - centre[0]) / radius[0])[:, None, None] ** 2 + ((y - centre[1]) / radius[1])[:, None] ** 2
        for plane, part in zip(voxels, inside, strict=True):
            plane[part + ((x - centre[2]) / radius[2]) ** 2 < 1] = random.integers(-700, 900)
    for plane in voxels:
        plane += random.integers(-15, 16, plane.shape, dtype=np.int16)
    return voxels


def stretched(path: str, size: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A volume interpolated to a size, as int16, and its (4, 4) matrix from (i, j, k) to RAS."""
    image = sitk.ReadImage(path)
    lengths = zip(image.GetSize(), image.GetSpacing(), size[::-1], strict=True)
    spacing = [extent * step / length for extent, step, length in lengths]
    grid = size[::-1], sitk.Transform(), sitk.sitkLinear, image.GetOrigin(), spacing, image.GetDirection()
    array = sitk.GetArrayFromImage(sitk.Cast(sitk.Resample(image, *grid), sitk.sitkInt16))
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * spacing
    matrix[:3, 3] = image.GetOrigin()
    return array, np.diag([-1.0, -1.0, 1.0, 1.0]) @ matrix


def peaks(panel) -> str:
    """The largest main memory of the application and of its worker until now, in GiB; Linux alone tells."""
    told, hello = [], panel.logic._worker.hello
    for name, process in (("application", "self"), ("worker", (hello or {}).get("pid"))):
        try:
            lines = Path(f"/proc/{process}/status").read_text("utf-8").splitlines()
            told += [f"{name} {int(line.split()[1]) / 2**20:.2f}" for line in lines if line.startswith("VmHWM")]
        except OSError:
            continue
    return ", ".join(told)


def noise(size: tuple[int, int, int]) -> np.ndarray:
    """(z, y, x) int16: blocks of any value."""
    coarse = np.random.default_rng(0).integers(0, 1000, [-(-length // 32) for length in size]).astype(np.int16)
    return np.kron(coarse, np.ones((32, 32, 32), np.int16))[tuple(slice(0, length) for length in size)].copy()


class Profile(cProfile.Profile):
    """Of the main thread's own processor time."""

    def __init__(self):
        super().__init__(time.thread_time)


class Gaps:
    """The largest gaps between two calls of a short timer, by phase."""

    def __init__(self):
        self.longest: dict[str, tuple[float, float]] = {}
        self._phase, self._clock, self._processor = "", time.perf_counter(), time.thread_time()
        self._profile = Profile() if os.environ.get("USEMA_PROFILE") else None
        self._timer = qt.QTimer()
        self._timer.interval = _TICK_MS
        self._timer.connect("timeout()", self._tick)
        self._timer.start()

    def phase(self, name: str) -> None:
        self._tick()
        if self._phase:
            print(f"{self._phase}: {self.longest[self._phase][1]:.3f} s of the processor", flush=True)
        self._phase = name
        self.longest.setdefault(name, (0.0, 0.0))

    def _tick(self) -> None:
        if self._profile:
            self._profile.disable()
        clock, processor = time.perf_counter(), time.thread_time()
        gap, busy = clock - self._clock, processor - self._processor
        self._clock, self._processor = clock, processor
        if self._phase:
            before = self.longest[self._phase]
            self.longest[self._phase] = max(before[0], gap), max(before[1], busy)
            if self._profile and busy > LONG:
                print(f"    {self._phase}: {gap:.3f} s, {busy:.3f} s of the processor", flush=True)
                pstats.Stats(self._profile).sort_stats("cumulative").print_stats(40)
        if self._profile:
            self._profile = Profile()
            self._profile.enable()


def wait(condition, seconds: float = _PATIENCE) -> None:
    """The event loop runs until the condition holds, or so long."""
    loop, timer, end = qt.QEventLoop(), qt.QTimer(), time.monotonic() + seconds

    def look() -> None:
        if condition() or time.monotonic() > end:
            loop.quit()

    timer.interval = 20
    timer.connect("timeout()", look)
    timer.start()
    loop.exec_()
    timer.stop()


def settle(seconds: float) -> None:
    wait(lambda: False, seconds)


def paint(node, volume) -> None:
    """A correction as an effect writes it: a few slices of the first segment."""
    editor = slicer.util.getModuleWidget("USEMASegmentation").ui.segmentEditor
    editor.setActiveEffectByName("Paint")
    effect = editor.activeEffect()
    editor.setCurrentSegmentID(node.GetSegmentation().GetNthSegmentID(0))
    editor.saveStateForUndo()
    modifier = effect.defaultModifierLabelmap()
    array = vtk_to_numpy(modifier.GetPointData().GetScalars())
    array = array.reshape(modifier.GetDimensions()[::-1])
    middle = [length // 2 for length in array.shape]
    array[middle[0] - 5 : middle[0], middle[1] - 20 : middle[1], middle[2] - 20 : middle[2]] = 1
    modifier.Modified()
    effect.modifySelectedSegmentByLabelmap(modifier, slicer.qSlicerSegmentEditorAbstractEffect.ModificationModeAdd)
    editor.setActiveEffectByName("")


def day(panel, volume, folder: Path):
    """What the user does one after another: (name, what is done, when it has ended)."""
    ui, review, section = panel.ui, panel.reviewSection.ui, panel.reviewSection
    node, editor = ui.outputSelector.currentNode(), ui.segmentEditor
    slider, selector = review.thresholdSlider, review.thresholdSelector
    small = slicer.util.addVolumeFromArray(np.arange(50**3, dtype=np.int16).reshape(50, 50, 50), name="Small")
    found, scene = review.findRegionsButton, str(folder / "scene.mrb")

    def choose(box, row: int) -> None:
        box.setCurrentIndex(row)

    def tick(widget, state) -> None:
        if widget.count:
            widget.item(0).setCheckState(state)

    yield (
        "Review and refine opened",
        lambda: setattr(review.reviewCollapsibleButton, "collapsed", False),
        lambda: section.cases,
    )
    yield "slider: first move", lambda: setattr(slider, "value", 1.0), lambda: review.thresholdApplyButton.enabled
    yield "slider: further moves", lambda: [setattr(slider, "value", one) for one in (0.5, -1.0, 0.5)], None
    yield "slider: Cancel", review.thresholdCancelButton.click, None
    yield "slider: another segment", lambda: choose(selector, 1), None
    yield "slider: its first move", lambda: setattr(slider, "value", 0.5), lambda: review.thresholdApplyButton.enabled
    yield "Apply", review.thresholdApplyButton.click, lambda: slider.enabled and section._looking is None
    yield "undo of Apply", editor.undo, None
    yield "Find", found.click, lambda: found.enabled
    yield "Next region", review.nextRegionButton.click, None
    yield "Previous region", review.previousRegionButton.click, None
    yield "region accepted", review.acceptRegionButton.click, None
    yield "region skipped", review.skipRegionButton.click, None
    yield "slice accepted", review.acceptSliceButton.click, None
    yield "slice unticked", lambda: tick(review.slicesList, qt.Qt.Unchecked), None
    yield "painted", lambda: paint(node, volume), lambda: review.refineButton.enabled
    yield "Refine", review.refineButton.click, lambda: "followed" in review.refineLabel.text
    yield "undo of Refine", editor.undo, None
    yield "segment unticked", lambda: tick(ui.labelsList, qt.Qt.Unchecked), None
    yield "segment ticked", lambda: tick(ui.labelsList, qt.Qt.Checked), None
    models = ui.modelSelector.currentIndex, (ui.modelSelector.currentIndex + 1) % max(ui.modelSelector.count, 1)
    yield "another model", lambda: choose(ui.modelSelector, models[1]), None
    yield "the model again", lambda: choose(ui.modelSelector, models[0]), None
    yield "another volume", lambda: ui.inputSelector.setCurrentNode(small), None
    yield "the volume again", lambda: ui.inputSelector.setCurrentNode(volume), None
    yield "another module", lambda: slicer.util.selectModule("Data"), None
    yield "back in the panel", lambda: slicer.util.selectModule("USEMASegmentation"), None
    yield "scene saved (3D Slicer alone)", lambda: slicer.util.saveScene(scene), None
    yield "scene closed", lambda: slicer.mrmlScene.Clear(False), None
    yield "scene opened", lambda: slicer.util.loadScene(scene), lambda: section.cases
    yield "Measure", ui.measureButton.click, lambda: ui.measureButton.enabled


def run(folder: Path) -> dict[str, tuple[float, float]]:
    if not MODEL:
        from bundles import plan, write_tiny_bundle

        (folder / "Models").mkdir()
        write_tiny_bundle(folder / "Models/tiny", orientation="LPS", preprocessing={**plan(), "spacing": [8.0] * 3})
        os.environ["USEMA_RESOURCES"] = str(folder)
    if GIVEN:
        from usema.serving.client import WorkerClient, find_python
        from USEMASegmentationLib import Logic

        command = [find_python(slicer.app.slicerHome), "-u", str(ROOT / "Testing/Benchmarks/given_result.py")]
        Logic.WorkerClient = lambda *_: WorkerClient(command)
    slicer.util.selectModule("USEMASegmentation")
    panel = slicer.util.getModuleWidget("USEMASegmentation")
    panel.showModels()
    ui = panel.ui
    settle(1)
    if VOLUME:
        array, toRas = stretched(VOLUME, SIZE)
    else:
        array, toRas = (noise if NOISE else body)(SIZE), np.diag([-1.0, -1.0, 1.0, 1.0])
    gaps = Gaps()
    gaps.phase("volume loaded and shown (3D Slicer alone)")
    volume = slicer.util.addVolumeFromArray(array, ijkToRAS=toRas, name="Large")
    slicer.util.setSliceViewerLayers(background=volume, fit=True)
    del array
    settle(2)
    gaps.phase("volume and model chosen")
    ui.inputSelector.setCurrentNode(volume)
    ui.modelSelector.setCurrentIndex(ui.modelSelector.findData(MODEL or "tiny"))
    if SPEED:
        ui.speedSelector.setCurrentIndex(ui.speedSelector.findData(SPEED))
    settle(2)
    for name in ("first result", "in place of it"):
        gaps.phase(f"{name}: the click")
        ui.segmentButton.click()
        wait(lambda: panel.logic.status.state not in ("starting", "sending"))
        gaps.phase(f"{name}: the engine at work")
        wait(lambda: panel.logic.status.done == panel.logic.status.total > 0 or not panel.logic.busy)
        gaps.phase(f"{name}: the result")
        wait(lambda: not panel.logic.busy)
        gaps.phase(f"{name}: afterwards")
        settle(3)
        print(name, ui.messageLabel.text, "\nGiB at the most:", peaks(panel), flush=True)
        node = ui.outputSelector.currentNode()
        if name == "first result":
            if DAY:
                for what, do, ended in day(panel, volume, folder):
                    gaps.phase(what)
                    do()
                    wait(ended or (lambda: True), 300)
                    settle(1.5)
                    print("GiB at the most:", peaks(panel), flush=True)
                break
            if REVIEW:
                gaps.phase("Review and refine opened")
                review = panel.reviewSection.ui
                review.reviewCollapsibleButton.collapsed = False
                wait(lambda: panel.reviewSection.cases)
                settle(3)
                gaps.phase("the slider moved")
                review.thresholdSlider.value = 1.0
                settle(2)
                review.thresholdCancelButton.click()
                gaps.phase("doubtful regions found")
                review.findRegionsButton.click()
                settle(2)
            gaps.phase("painted")
            paint(node, volume)
            settle(3)
            if SURFACES:
                gaps.phase("Show 3D (3D Slicer alone)")
                ui.show3DButton.toggle()
                settle(3)
            ui.existingSelector.setCurrentIndex(ui.existingSelector.findData("replace"))
            settle(2)
    else:
        gaps.phase("undo")
        ui.segmentEditor.undo()
        settle(2)
    return gaps.longest


def main() -> None:
    code = 1
    if os.environ.get("USEMA_REPORT"):  # the application's own console goes with it
        sys.stdout = sys.stderr = Path(os.environ["USEMA_REPORT"]).open("w", buffering=1)  # noqa: SIM115
    try:
        with tempfile.TemporaryDirectory() as folder:
            longest = run(Path(folder))
            slicer.util.getModuleWidget("USEMASegmentation").logic.releaseMemory()
        kind = "given organs" if GIVEN else "labels like noise" if NOISE else MODEL or "smooth organs"
        kind += ", surfaces" * SURFACES + ", Review and refine open" * REVIEW + ", a day" * DAY
        size = " x ".join(map(str, SIZE))
        load = f"load {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores" if hasattr(os, "getloadavg") else ""
        application = f"3D Slicer {slicer.app.applicationVersion}"
        lines = [f"## {date.today()}, in {application}, {size} voxels, {kind}, {load}", ""]
        lines += ["| phase | largest gap on the clock s | processor s |", "|---|---|---|"]
        lines += [f"| {name} | {gap:.3f} | {busy:.3f} |" for name, (gap, busy) in longest.items()]
        print("\n".join(lines), flush=True)
        if os.environ.get("USEMA_WRITE"):
            with RESULTS.open("a", encoding="utf-8") as file:
                file.write("\n".join(lines) + "\n\n")
        code = 0
    except BaseException:
        traceback.print_exc()
    slicer.util.exit(code)


qt.QTimer.singleShot(1000, main)
