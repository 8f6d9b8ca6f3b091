"""Public models of whole heads against the publisher's own labels, with their seconds and memory.

    python Testing/Benchmarks/whole_heads.py [--models brain-mask ...] [--machine WORDS] [--write]

Each model is converted from its publisher's file and segments the heads of ../shared/data in a process of its own, on
one thread. "Differ" counts the voxels that are not the publisher's, "of" those that are not background there. Processor
seconds are of the whole segmentation, on the volume's own grid; the peak is of the whole process. --write makes
results/whole_heads.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from own_process import found_by, peak_bytes

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "USEMASegmentation"))
DATA = ROOT.parent / "shared" / "data"
PUBLISHED = DATA / "public_models" / "brainchop"
RESULTS = Path(__file__).with_name("results") / "whole_heads.md"
HEADS = {
    "whole_head": (DATA / "volumes/whole_head/t1_whole_head.nii.gz", "conformed"),
    "whole_head_oblique": (PUBLISHED / "reference/whole_head_oblique/t1_whole_head_oblique.nii.gz", "native"),
}
REFERENCES = {
    "brain-tissue-light": "model5_gw_ae",
    "brain-subcortical-mini": "model18cls",
    "brain-subcortical": "subcortical",
    "brain-tissue": "model20chan3cls",
    "brain-aparc": "model21_104class_after_mindgrab",
    "brain-aparc-50": "model30chan50cls",
    "brain-mask": "mindgrab",
}


def measure(model: str, head: str) -> dict:
    """One model on one head, in this process."""
    import numpy as np
    from usema import converters
    from usema.inference.predictor import Predictor
    from usema.volumes.volume import read_volume

    volume, _ = HEADS[head]
    with tempfile.TemporaryDirectory() as folder:
        bundle = converters.convert(PUBLISHED / "weights", Path(folder) / "model", (model,))
        predictor = Predictor(bundle, "cpu")
    started = time.process_time()
    labels = predictor.segment(read_volume(volume)).labels
    seconds = time.process_time() - started
    peak = peak_bytes() / 2**30
    reference = read_volume(_reference(model, head)).array
    return {
        "seconds": seconds,
        "peak": peak,
        "differ": int(np.count_nonzero(labels != reference)),
        "of": int(np.count_nonzero(reference)),
    }


def _reference(model: str, head: str) -> Path:
    """The publisher's labels; not there for every model on the oblique head."""
    return PUBLISHED / "reference" / head / f"{REFERENCES[model]}_{HEADS[head][1]}.nii.gz"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(REFERENCES), choices=list(REFERENCES))
    parser.add_argument("--machine", default=f"{os.cpu_count()} processors")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(*arguments.one)))
        return
    rows = []
    for model in arguments.models:
        for head in filter(lambda head: _reference(model, head).exists(), HEADS):
            found = found_by(__file__, "--one", model, head)
            figures = f"{found['differ']} | {found['of']} | {found['seconds']:.0f} | {found['peak']:.1f}"
            rows.append(f"| {model} | {head} | {figures} |")
            print(rows[-1], flush=True)
    if arguments.write:
        today = datetime.date.today().isoformat()
        head = f"""# Public models of whole heads

{today}, {arguments.machine}. Made by `python Testing/Benchmarks/whole_heads.py --write`, which says what is counted.

| model | head | voxels that differ | of | processor seconds | peak GiB |
|---|---|---|---|---|---|
"""
        RESULTS.write_text(head + "\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
