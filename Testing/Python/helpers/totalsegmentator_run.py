"""Runs the package TotalSegmentator, in a process of its own: it changes nnU-Net for the whole process.

    python totalsegmentator_run.py WEIGHTS_FOLDER JOBS.json

A job is {"input", "output", "options"}; options are those of ``totalsegmentator.python_api.totalsegmentator``. It runs
as its users have it, but for two things: nnU-Net weighs and adds up its tiles in single precision (half precision turns
voxels that a hardly trained network is not sure of), and does without worker processes and more threads than it is
given.
"""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path
from types import ModuleType


def main(weights: str, jobs: str) -> None:
    home = Path(weights).parent / "home"
    home.mkdir(exist_ok=True)
    (home / "config.json").write_text(json.dumps({
        "totalseg_id": "test", "send_usage_stats": False, "prediction_counter": 0, "statistics_disclaimer_shown": True
    }))  # fmt: skip
    os.environ |= {"TOTALSEG_HOME_DIR": str(home), "TOTALSEG_WEIGHTS_PATH": weights}
    os.environ |= dict.fromkeys(("nnUNet_results", "nnUNet_raw", "nnUNet_preprocessed"), weights)

    import torch

    try:
        import nnunetv2.training.dataloading.data_loader  # noqa: F401
    except ImportError:  # of a later nnU-Net; TotalSegmentator's trainers name it, and nothing is trained here
        stub = ModuleType("nnunetv2.training.dataloading.data_loader")
        stub.nnUNetDataLoader = object
        sys.modules[stub.__name__] = stub
    import nnunetv2.inference.predict_from_raw_data as prediction
    from totalsegmentator.python_api import totalsegmentator

    torch.half = torch.float32
    clear = prediction.compute_gaussian.cache_clear
    prediction.compute_gaussian = partial(prediction.compute_gaussian, dtype=torch.float32)
    prediction.compute_gaussian.cache_clear = clear
    torch.set_num_threads = lambda count: None  # it takes all cores, also those of others

    def alone(self, files, folder, num_processes_preprocessing, num_processes_segmentation_export, **options):
        options = {key: value for key, value in options.items() if key not in ("num_parts", "part_id")}
        return self.predict_from_files_sequential(files, folder, **options)

    prediction.nnUNetPredictor.predict_from_files = alone
    for job in json.loads(Path(jobs).read_text()):
        totalsegmentator(Path(job["input"]), Path(job["output"]), ml=True, device="cpu", quiet=True, **job["options"])


if __name__ == "__main__":
    main(*sys.argv[1:])
