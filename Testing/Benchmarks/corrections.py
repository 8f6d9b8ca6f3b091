"""What a few corrected slices give the rest of a case, by a simulated user: learning against ways that do not learn.

    python Testing/Benchmarks/corrections.py run sarcoma --work FOLDER        # again: goes on where it stopped
    python Testing/Benchmarks/corrections.py run hippocampus --work FOLDER [--cases 6] [--one-side FOLDER]
    python Testing/Benchmarks/corrections.py run hippocampus --work FOLDER --axis 1 [--finer]   # coronal; at 0.5 mm
    python Testing/Benchmarks/corrections.py report --work FOLDER             # writes results/corrections.md

The user corrects 1, 2, 3, 5 or 8 slices perfectly, axial ones unless --axis says otherwise, the worst ones that are not
close to each other. Only slices that he did not correct are scored: mean Dice over the labels. The ways:

    paste        the corrected slices alone; all others stay as the model had them
    contours     ITK's morphological contour interpolation between the corrected slices; the model beyond them
    grow         ITK's growcut (what 3D Slicer's "Grow from seeds" wraps) from the eroded labels of the corrected slices
    carried      what was changed, carried to the next slices with the model's probabilities; nothing is learned
    learned      carried, and heads that learned, faded with distance
    propagated   by the network that has learned how corrections go on (propagation.py), on none of these cases
    auto         as the panel asks for it: propagated, unless the corrected slices, each left out in turn, come out
                 better if the others are carried, or not heard at all
    deep         as learned, but norms and the last stage learn, too (only with --deep: a minute of a processor each)

Cases: of `sarcoma-mr` the eight that it was not trained on. Of `hippocampus-mr` validation cases, as they are and as
other scanners would give them (robustness_cases.py); "one side": version 0.2.0, which saw one side alone, on the other.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from datetime import date
from functools import cache
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "USEMASegmentation"), str(ROOT / "Testing/Python/helpers")]

import torch  # noqa: E402
from robustness_cases import FURTHER, OTHER_SIDE, SPACINGS, Changed, dice, unmoved  # noqa: E402
from scipy import ndimage  # noqa: E402
from usema.adaptation.adapting import adapt  # noqa: E402
from usema.adaptation.corrections import Corrections  # noqa: E402
from usema.adaptation.fitting import HEADS, STAGE  # noqa: E402
from usema.adaptation.wish import Wish  # noqa: E402
from usema.inference.predictor import Predictor  # noqa: E402
from usema.models.bundle import read_bundle  # noqa: E402
from usema.resources import bundled_models, resources_folder  # noqa: E402
from usema.volumes.volume import Volume, load_volume, read_volume  # noqa: E402

RESULTS = Path(__file__).with_name("results")
COUNTS = (1, 2, 3, 5, 8)
ALONE = ("paste", "contours", "grow", "carried")  # those that do not learn
WAYS = (*ALONE, "learned", "propagated", "auto", "deep")
WORSE = 0.005
SLICES = ("", ", coronal slices", ", sagittal slices")  # by the axis of the array; all these volumes lie so
SHIFTS = {
    "as it is": lambda image, reference, rng: Changed(image, unmoved),
    "thick slices": SPACINGS["0.5 x 0.5 x 2 mm"],
    "bias field": FURTHER["bias field, 30 %"],
    "noise": FURTHER["noise, 5 %"],
}


def worst_slices(labels: np.ndarray, reference: np.ndarray, count: int, weights=1.0) -> list[int]:
    """The slices with the most wrong voxels (times weights), each farther from the others than a part of the whole."""
    shown = np.flatnonzero(((reference > 0) | (labels > 0)).any(axis=(1, 2)))
    errors = (labels != reference).sum(axis=(1, 2)) * weights
    apart = int((shown[-1] - shown[0]) / (2 * count))
    chosen: list[int] = []
    for index in sorted(shown.tolist(), key=lambda one: -errors[one]):
        if all(abs(index - other) > apart for other in chosen) and len(chosen) < count:
            chosen.append(index)
    return sorted(chosen)


def with_contours(labels: np.ndarray, pasted: np.ndarray, chosen: list[int]) -> np.ndarray:
    """Between the first and the last corrected slice what ITK interpolates of them."""
    import itk

    if len(chosen) < 2:
        return pasted
    alone = np.zeros(pasted.shape, np.uint8)
    alone[chosen] = pasted[chosen]
    interpolate = itk.MorphologicalContourInterpolator.New(itk.image_from_array(alone))
    interpolate.SetAxis(2)
    interpolate.SetUseDistanceTransform(True)
    interpolate.Update()
    result, between = pasted.copy(), slice(chosen[0], chosen[-1] + 1)
    result[between] = itk.array_from_image(interpolate.GetOutput())[between]
    return result


def grown(image: np.ndarray, pasted: np.ndarray, chosen: list[int]) -> np.ndarray:
    """From seeds: each label of the corrected slices, eroded, and background there away from all labels."""
    import itk

    seeds = np.zeros(pasted.shape, np.uint8)
    background = int(pasted.max()) + 1
    for index in chosen:
        plane = pasted[index]
        for value in np.unique(plane[plane > 0]):
            eroded = ndimage.binary_erosion(plane == value)
            seeds[index][eroded if eroded.any() else plane == value] = value
        seeds[index][~ndimage.binary_dilation(plane > 0, iterations=2)] = background
    kind = itk.Image[itk.SS, 3]
    scaled = (image - image.min()) / max(float(np.ptp(image)), 1e-9) * 1000
    volume = itk.image_from_array(scaled.astype(np.int16))
    assert isinstance(volume, kind)
    grow = itk.FastGrowCut.New(volume, SeedImage=itk.image_from_array(seeds))
    grow.Update()
    result = itk.array_from_image(grow.GetOutput())
    return np.where(result == background, 0, result).astype(pasted.dtype)


def measure(predictor: Predictor, volume: Volume, reference: np.ndarray, own: np.ndarray, count: int, options, have):
    """A row for a number of slices, without the ways that are there; None where there are not so many slices."""
    values = tuple(int(one) for one in np.unique(reference) if one)
    reference, own = (np.ascontiguousarray(np.moveaxis(one, options.axis, 0)) for one in (reference, own))
    chosen = worst_slices(own, reference, count)
    if len(chosen) < count:
        return None
    pasted = own.copy()
    pasted[chosen] = reference[chosen]
    rest = np.ones(len(own), bool)
    rest[chosen] = False
    row = {"count": count, "slices": chosen, "dice": {}, "seconds": {}, "ways": {}}
    for way, labels, seconds in _tried(predictor, volume, own, pasted, chosen, options, have, row["ways"]):
        row["dice"][way] = float(np.nanmean(dice(labels[rest], reference[rest], values)))
        row["seconds"][way] = round(seconds, 2)
    print({way: round(one, 3) for way, one in row["dice"].items()}, row["seconds"], flush=True)
    return row


def _tried(predictor: Predictor, volume: Volume, own, pasted, chosen: list[int], options, have, taken: dict):
    """(way, labels, seconds of the processor) of each but those in ``have``; ``taken`` receives the engine's choice.

    Labels have the axis of the corrected slices in front.
    """
    axis = options.axis
    yield "paste", pasted, 0.0
    if "contours" not in have:
        started = time.process_time()
        labels = with_contours(own, pasted, chosen)
        yield "contours", labels, time.process_time() - started
    if "grow" not in have:
        started = time.process_time()
        labels = grown(np.moveaxis(volume.array, axis, 0).astype(np.float32), pasted, chosen)
        yield "grow", labels, time.process_time() - started
    corrections = Corrections(np.moveaxis(pasted, 0, axis), tuple((axis, index) for index in chosen))

    def engine(way: str, recipe=HEADS):
        started = time.process_time()
        adapted = adapt(predictor, [volume], corrections, Wish(way=way, recipe=recipe, seconds_allowed=1e6))
        seconds = time.process_time() - started
        return adapted.report["way"], np.moveaxis(adapted.segmentation.labels, axis, 0), seconds

    left = [way for way in ("carried", "learned", "propagated") if way not in have]
    if "auto" not in have:
        taken["auto"], labels, seconds = engine("auto")
        yield "auto", labels, seconds
        if taken["auto"] in left:  # the same seed gives the same labels
            left.remove(taken["auto"])
            yield taken["auto"], labels, seconds
    for way in left:
        _, labels, seconds = engine(way)
        yield way, labels, seconds
    if options.deep and "deep" not in have:
        _, labels, seconds = engine("learned", STAGE)
        yield "deep", labels, seconds


def unpacked_sarcoma(work: Path) -> Path:
    """The bundle's folder of the sarcoma model that waits for its release."""
    import zipfile

    folder = work / "sarcoma-mr"
    if not folder.exists():
        (release,) = (resources_folder() / "Releases").glob("sarcoma-mr-*.usema")
        with zipfile.ZipFile(release) as archive:
            archive.extractall(folder)
    return folder


def cases_of(what: str, limit: int | None, one_side: Path | None, data: Path, work: Path, finer: bool = False):
    """(set, case, a function that gives predictor, volume and reference)."""
    if what == "sarcoma":
        dataset = data / "nnUNet_raw" / "Dataset051_SarcomaMR"
        bundle = read_bundle(unpacked_sarcoma(work))
    else:
        dataset = data / "nnUNet_raw" / "Dataset004_Hippocampus"
        bundle = read_bundle(bundled_models()["hippocampus-mr"])
    cases = json.loads((bundle.path / "card" / "cases.json").read_text())["cases"]
    names = sorted(case["case"] for case in cases)[:limit]
    shifts = {"as it is": SHIFTS["as it is"]} if what == "sarcoma" else SHIFTS
    if finer:
        shifts = {"voxels of 0.5 mm": SPACINGS["0.5 x 0.5 x 0.5 mm"]}
    bundles = {(f"{bundle.metadata.name}, {shift}"): (bundle, change) for shift, change in shifts.items()}
    if one_side is not None:
        change = OTHER_SIDE["left and right mirrored"]
        bundles[f"{bundle.metadata.name}, learned one side, shown the other"] = (read_bundle(one_side), change)
    predictors: dict[str, Predictor] = {}
    for seed, name in enumerate(names):
        for kind, (model, change) in bundles.items():

            @cache
            def load(seed=seed, name=name, model=model, change=change):
                key = model.metadata.version
                predictors.setdefault(key, Predictor(model, "cpu"))
                image = read_volume(dataset / "imagesTr" / f"{name}_0000.nii.gz")
                reference = load_volume(dataset / "labelsTr" / f"{name}.nii.gz").array.astype(np.int16)
                changed = change(image, reference, np.random.default_rng(seed))
                own = predictors[key].segment(changed.image).labels.astype(np.int16)
                return predictors[key], changed.image, changed.follow(reference), own

            yield kind, name, load


def run(options) -> None:
    options.work.mkdir(parents=True, exist_ok=True)
    name = f"{options.what}{'-deep' * options.deep}{'-finer' * options.finer}"
    path = options.work / f"{name}{f'-{options.axis}' * (options.axis > 0)}.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    done: dict[tuple, set] = {}
    for one in map(json.loads, lines):
        done.setdefault((one["set"], one["case"], one["count"]), set()).update((one["row"] or {"dice": WAYS})["dice"])
    wanted = set(WAYS) if options.deep else set(WAYS) - {"deep"}
    of = (options.what, options.cases, options.one_side, options.data, options.work, options.finer)
    cases = [(kind + SLICES[options.axis], name, load) for kind, name, load in cases_of(*of)]
    for count in options.counts:  # so that a run that is stopped has all cases of some numbers
        for kind, name, load in cases:
            have = done.get((kind, name, count), set())
            if have >= wanted or not any(part in kind for part in options.sets):
                continue
            print(count, kind, name, flush=True)
            row = measure(*load(), count, options, have)
            with path.open("a") as file:
                file.write(json.dumps({"set": kind, "case": name, "count": count, "row": row}) + "\n")


def interval(differences: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of the mean, by bootstrap over the cases."""
    rng = np.random.default_rng(0)
    means = rng.choice(differences, (10_000, len(differences))).mean(axis=1)
    return tuple(np.percentile(means, (2.5, 97.5)))


def table(rows: list[dict]) -> list[str]:
    """Of one set: mean Dice by way and number of slices, and what the shipped way gains."""
    ways = [way for way in WAYS if any(way in row["dice"] for row in rows)]
    lines = [f"| slices | cases | {' | '.join(ways)} | auto, less the best that does not learn | worse |"]
    lines.append("|---" * (len(ways) + 4) + "|")
    for count in COUNTS:
        own = [row for row in rows if row["count"] == count and "auto" in row["dice"]]
        if not own:
            continue
        means = {way: np.mean([row["dice"][way] for row in own if way in row["dice"]] or [np.nan]) for way in ways}
        shipped = np.array([row["dice"]["auto"] for row in own])
        best = max(ALONE, key=lambda way: means[way])
        gain = shipped - [row["dice"][best] for row in own]
        low, high = interval(gain)
        worse = np.mean(shipped < np.array([row["dice"]["paste"] for row in own]) - WORSE)
        cells = [f"{means[way]:.3f}" if np.isfinite(means[way]) else "" for way in ways]
        lines.append(
            f"| {count} | {len(own)} | {' | '.join(cells)} | {gain.mean():+.3f} ({low:+.3f} to {high:+.3f}), {best} | "
            f"{worse:.0%} |"
        )
    return lines


def report(options) -> None:
    sets: dict[str, dict[str, list[dict]]] = {}
    for path in sorted(options.work.glob("*.jsonl")):
        for line in path.read_text().splitlines():
            one = json.loads(line)
            rows, row = sets.setdefault(one["set"], {}).setdefault(one["case"], []), one["row"]
            if row is None:
                continue
            same = next((other for other in rows if other["count"] == row["count"]), None)
            if same is None:
                rows.append(row)
            else:  # of another run of the same case
                for what in ("dice", "seconds", "ways"):
                    same[what] |= row[what]
    text = [
        "# What a few corrected slices give the rest of a case",
        "",
        f"Made by `Testing/Benchmarks/corrections.py` on {date.today()}; its head says what the ways are. A simulated "
        "user corrects the worst slices perfectly, axial ones unless said otherwise; only the slices that he did not "
        "correct are scored: mean Dice over the labels. Worse: the share of cases whose Dice is more than "
        f"{WORSE} below that of the model's own result there. Intervals: 95 %, paired bootstrap over the cases. No "
        "real user has corrected these slices.",
        "",
    ]
    for kind, cases in sets.items():
        rows = [row for its in cases.values() for row in its]
        text += [f"## {kind}", "", *table(rows), ""]
        seconds = {way: [row["seconds"][way] for row in rows if way in row["seconds"]] for way in WAYS}
        told = [
            f"{way} {np.median(one):.1f}" for way, one in seconds.items() if one and way not in ("paste", "contours")
        ]
        text += [f"Seconds of one processor, median of a case: {', '.join(told)}.", ""]
        chosen = [row["ways"]["auto"] for row in rows if "auto" in row["ways"]]
        if chosen:
            text += [f"What auto chose: {', '.join(f'{way} {chosen.count(way)}' for way in sorted(set(chosen)))}.", ""]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "corrections.md").write_text("\n".join(text).rstrip() + "\n")
    print("\n".join(text))


def main() -> None:
    os.environ.setdefault("USEMA_CPU_BACKEND", "pytorch")
    start(__doc__, run, report, _add_options)


def start(description: str, run: Callable, report: Callable, add_options: Callable) -> None:
    """The commands `run` and `report` of a benchmark that keeps its rows in --work; ``add_options`` adds run's own."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    running = commands.add_parser("run")
    add_options(running)
    running.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    running.set_defaults(do=run)
    reporting = commands.add_parser("report")
    reporting.set_defaults(do=report)
    for each in (running, reporting):
        each.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.do(options)


def _add_options(running: argparse.ArgumentParser) -> None:
    running.add_argument("what", choices=["sarcoma", "hippocampus"])
    running.add_argument("--cases", type=int, help="only so many of them")
    running.add_argument("--counts", type=int, nargs="+", default=COUNTS)
    running.add_argument("--axis", type=int, choices=(0, 1, 2), default=0)
    running.add_argument("--finer", action="store_true", help="hippocampi at voxels of 0.5 mm")
    running.add_argument("--deep", action="store_true")
    running.add_argument("--sets", nargs="+", default=[""], help="only those whose names hold one of these")
    running.add_argument("--one-side", type=Path, help="bundle of hippocampus-mr 0.2.0")


if __name__ == "__main__":
    main()
