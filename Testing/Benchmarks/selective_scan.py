"""Speed and memory of the selective scan: its definition beside the chunked version and, where it runs, mamba-ssm.

    python Testing/Benchmarks/selective_scan.py [--lengths 196 784 3136] [--channels 256] [--rounds 3] [--write]

Sequences as SS2D has them: four groups of channels, 16 numbers of state a channel, float32. Each way runs in a process
of its own. Times are CPU time of one thread (on a GPU, time between events), the best round; memory is what the process
or the GPU holds at its peak beyond the inputs. Lengths 196 to 50176 are maps of 14x14 to 224x224; the definition, which
keeps the states of all positions for the backward pass, is left out where those take more than --limit GiB.
--write appends the table to Testing/Benchmarks/results/selective_scan.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

from own_process import peak_bytes

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "USEMASegmentation"))
GROUPS, STATES = 4, 16
WAYS = ("reference", "chunked", "mamba-ssm")


def measure(way: str, length: int, channels: int, rounds: int, training: bool, device: str) -> dict[str, float]:
    """Seconds and GiB of one pass, with its backward pass in training."""
    import torch
    from usema.scan import selective_scan

    torch.set_num_threads(1)
    torch.manual_seed(0)

    def inputs(size: int) -> list[torch.Tensor]:
        shapes = [(1, channels, size)] * 2 + [(channels, STATES)] + [(1, GROUPS, STATES, size)] * 2 + [(channels,)] * 2
        tensors = [torch.randn(shape, device=device) for shape in shapes]
        tensors[2] = -tensors[2].exp()
        tensors[6] -= 4  # steps of about 0.02, as networks start with
        return [tensor.requires_grad_(training) for tensor in tensors]

    def run(tensors: list[torch.Tensor]) -> None:
        y = selective_scan(*tensors, True, backend=way)
        if training:
            torch.autograd.grad(y, tensors, y.detach())

    run(inputs(8))  # first-call costs are not the scan's
    tensors = inputs(length)
    gpu = device != "cpu"
    if gpu:
        torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated() if gpu else peak_bytes()
    seconds = []
    for _ in range(rounds):
        if gpu:
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            run(tensors)
            end.record()
            end.synchronize()
            seconds.append(begin.elapsed_time(end) / 1e3)
        else:
            started = time.process_time()
            run(tensors)
            seconds.append(time.process_time() - started)
    peak = torch.cuda.max_memory_allocated() if gpu else peak_bytes()
    return {"seconds": min(seconds), "gib": (peak - held) / 2**30}


def rows(arguments: argparse.Namespace) -> list[str]:
    lines = ["| L | pass | way | ms | ratio | MiB | ratio |", "|---" * 7 + "|"]
    for length in arguments.lengths:
        for training in (False, True):
            # The definition keeps about five tensors of the states' size for its backward pass.
            states = 4 * STATES * arguments.channels * length / 2**30
            found = {}
            for way in WAYS:
                if way == "reference" and training and 5 * states > arguments.limit:
                    continue
                own = [f"--own={json.dumps([way, length, arguments.channels, arguments.rounds, training])}"]
                command = [sys.executable, __file__, *own, "--device", arguments.device]
                run = subprocess.run(
                    command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
                )
                if run.returncode == 0:
                    found[way] = json.loads(run.stdout.splitlines()[-1])
                elif way != "mamba-ssm":
                    sys.exit(run.stderr)
            ours = found["chunked"]
            for way, result in found.items():
                lines.append(
                    f"| {length} | {'forward, backward' if training else 'forward'} | {way} | "
                    f"{1e3 * result['seconds']:.1f} | {result['seconds'] / ours['seconds']:.2f} | "
                    f"{2**10 * result['gib']:.1f} | {result['gib'] / max(ours['gib'], 2**-20):.2f} |"
                )
                print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[196, 784, 3136, 12544, 50176])
    parser.add_argument("--channels", type=int, default=256, help="in all four groups; Attention-Mamba's SS2D has 1024")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--limit", type=float, default=2.0, help="GiB that the definition may take")
    parser.add_argument("--machine", default="", help="in words, for the results file")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--own", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.own:
        print(json.dumps(measure(*json.loads(arguments.own), arguments.device)))
        return
    table = "\n".join(rows(arguments))
    command = f"python Testing/Benchmarks/selective_scan.py --channels {arguments.channels} --rounds {arguments.rounds}"
    text = f"## {date.today()}, {arguments.machine or arguments.device}\n\n`{command}`\n\n{table}\n"
    if arguments.write:
        with (ROOT / "Testing/Benchmarks/results/selective_scan.md").open("a", encoding="utf-8") as file:
            file.write(text + "\n")


if __name__ == "__main__":
    main()
