"""Memory that is told before a public model is downloaded, and when it is here, against what a run takes.

    python Testing/Benchmarks/memory_before_click.py [--cases brainchop ...] [--machine WORDS] [--write]

One case for each publisher: brainchop's own light tissue model on a whole head; stand-ins of TotalSegmentator's and
Auto3DSeg's forms (small networks with random weights, the usual tile) on a CT of 30 x 101 x 122 voxels of 3 mm, and on
the same with voxels of 1 mm. Each runs in a process of its own, on one thread; the peak is that of the whole process.
What is told is a least: it has to stay below the peak. --write makes results/memory_before_click.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path

from own_process import found_by, peak_bytes

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "USEMASegmentation"), str(ROOT / "Testing/Python/helpers")]
DATA = ROOT.parent / "shared" / "data"
RESULTS = Path(__file__).with_name("results") / "memory_before_click.md"
HEAD = DATA / "volumes/whole_head/t1_whole_head.nii.gz"
CT = DATA / "volumes/body_ct/example_ct_sm.nii.gz"
FINER = 3  # times as many voxels along each axis
CASES = {  # name: model, finer
    "brainchop": ("brain-tissue-light", 1),
    "totalsegmentator": ("totalsegmentator-total-3mm", 1),
    "totalsegmentator, finer": ("totalsegmentator-total-3mm", FINER),
    "auto3dseg": ("auto3dseg-abdominal-organs-3mm", 1),
    "auto3dseg, finer": ("auto3dseg-abdominal-organs-3mm", FINER),
}


def make(model: str, folder: Path) -> Path:
    """The bundle of a model, made from its publisher's file or from one of its form."""
    from usema import converters
    from usema.converters.public import public_models

    (public,) = (one for one in public_models() if one.name == model)
    if public.recipe["format"] == "brainchop":
        files = [DATA / "public_models/brainchop/weights/model5_gw_ae/model.pth"]
    elif public.recipe["format"] == "auto3dseg":
        import auto3dseg_models as published

        settings = published.config(1 + len(public.labels), roi_size=[96, 96, 96], network={"init_filters": 16})
        saved = published.save(folder / "saved", settings, published.network_of(settings), list(public.raw_labels))
        files = [published.zipped(saved, folder / Path(public.files[0].url).name)]
    else:
        import totalsegmentator_models as published

        (dataset,) = public.recipe["datasets"]
        made = published.make(folder / "made", DATA, public, dataset, patch=(128, 128, 128))
        files = [folder / f"{made.name}.zip"]
        with zipfile.ZipFile(files[0], "w") as archive:
            for file in made.rglob("*"):
                archive.write(file, file.relative_to(made.parent))
    return converters.convert_public(files, model, folder / "bundle", converters.Work()).path


def volume_of(model: str, finer: int):
    from usema.volumes.volume import Volume, read_volume

    volume = read_volume(HEAD if model.startswith("brain") else CT)
    if finer == 1:
        return volume
    array = volume.array.repeat(finer, 0).repeat(finer, 1).repeat(finer, 2)
    geometry = volume.geometry
    spacing = tuple(mm / finer for mm in geometry.spacing)
    return Volume(array, replace(geometry, size=array.shape[::-1], spacing=spacing))


def run(bundle: Path, model: str, finer: int) -> dict:
    """The peak of a run in this process."""
    from usema.converters.public import public_models
    from usema.converters.public_cost import least_bytes
    from usema.inference.predictor import Predictor
    from usema.models.bundle import read_bundle

    volume = volume_of(model, finer)
    shape, spacing = volume.geometry.shape, volume.geometry.spacing_zyx
    (public,) = (one for one in public_models() if one.name == model)
    metadata = read_bundle(bundle).metadata
    Predictor(read_bundle(bundle), "cpu").segment(volume)
    return {
        "shape": list(shape),
        "before": least_bytes(public, shape, spacing),
        "here": least_bytes(public, shape, spacing, metadata),
        "peak": peak_bytes(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--machine", default=f"{os.cpu_count()} processors")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        bundle, model, finer = arguments.one
        print(json.dumps(run(Path(bundle), model, int(finer))))
        return
    rows, made = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for case in arguments.cases:
            model, finer = CASES[case]
            if model not in made:
                place = Path(folder) / model
                place.mkdir()
                made[model] = make(model, place)
            found = found_by(__file__, "--one", made[model], model, finer)
            figures = " | ".join(f"{found[key] / 1e9:.2f}" for key in ("before", "here", "peak"))
            rows.append(f"| {model} | {' x '.join(map(str, found['shape']))} | {figures} |")
            print(rows[-1], flush=True)
    if arguments.write:
        head = f"""# Memory told before the click

{datetime.date.today().isoformat()}, {arguments.machine}. Made by `python Testing/Benchmarks/memory_before_click.py
--write`, which says what is compared. GB are 10^9 bytes.

| model | voxels | told before the download, GB | told when it is here, GB | peak of a run, GB |
|---|---|---|---|---|
"""
        RESULTS.write_text(head + "\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
