"""A download with verification, on loopback: usema's, curl with sha256sum, and huggingface_hub's.

    python Testing/Benchmarks/download.py [--megabytes 500] [--rounds 1] [--write]

A web server of the standard library, in a process of its own, serves one file of random bytes; it sends with sendfile,
so it costs next to nothing. Each way runs in a new process, one after the other: seconds until the file is there and
its SHA-256 was compared (imports left out), and the process' peak memory (imports included; of curl and sha256sum the
larger). Best of the rounds, with ratios to usema. Linux only: the peak is VmHWM, because ru_maxrss begins with that of
the parent. huggingface_hub's ``http_get``, which its downloads go through, verifies no hash; it gets
the one line with which the standard library does. --write appends to results/download.md.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).with_name("results") / "download.md"
HEADER = """# Downloading and verifying a file on loopback

Made by `Testing/Benchmarks/download.py`, which says what is compared. Ratios to usema are in brackets.

| date | machine | MB | way | seconds | peak memory, MB | rounds |
|---|---|---|---|---|---|---|
"""

SERVER = """
import os, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
path = sys.argv[1]
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_HEAD(self):
        self.send_response(200)
        self.send_header("Content-Length", str(os.path.getsize(path)))
        self.send_header("ETag", '"1"')
        self.end_headers()
    def do_GET(self):
        self.do_HEAD()
        self.wfile.flush()
        with open(path, "rb") as stream:
            self.connection.sendfile(stream)
    def log_message(self, *args):
        pass
server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"""

# In front of each way; each prints its seconds and kilobytes.
PEAK = """
import re
def peak(process="self"):
    with open(f"/proc/{process}/status") as stream:
        found = re.search(r"VmHWM:\\s+(\\d+)", stream.read())
    return int(found[1]) if found else 0  # none of a process that has just ended
"""
USEMA = """
import sys, time
import requests, truststore
from usema.store.download import fetch
url, target, size, sha256 = sys.argv[1:]
start = time.perf_counter()
fetch([url], target, size=int(size), sha256=sha256, progress=lambda step: None)
print(time.perf_counter() - start, peak())
"""
HUGGINGFACE_HUB = """
import hashlib, sys, time
from huggingface_hub.file_download import http_get
url, target, size, sha256 = sys.argv[1:]
start = time.perf_counter()
with open(target, "wb") as stream:
    http_get(url, stream, expected_size=int(size))
with open(target, "rb") as stream:
    digest = hashlib.sha256()
    while chunk := stream.read(2**20):
        digest.update(chunk)
assert digest.hexdigest() == sha256
print(time.perf_counter() - start, peak())
"""
CURL = """
import subprocess, sys, time
url, target, size, sha256 = sys.argv[1:]
start = time.perf_counter()
highest = 0
open(target + ".sha256", "w").write(f"{sha256}  {target}")
for command in (
    ["curl", "--silent", "--show-error", "--fail", "--output", target, url],
    ["sha256sum", "--check", "--quiet", target + ".sha256"],
):
    with subprocess.Popen(command) as process:
        while process.poll() is None:
            highest = max(highest, peak(process.pid))
            time.sleep(0.01)
    assert process.returncode == 0
print(time.perf_counter() - start, highest)
"""
WAYS = {"usema": USEMA, "curl, sha256sum": CURL, "huggingface_hub": HUGGINGFACE_HUB}


def measure(program: str, arguments: list[str]) -> tuple[float, float]:
    """(seconds, peak memory in MB) of a way in a new process."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "USEMASegmentation"), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", PEAK + program, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    seconds, kilobytes = run.stdout.split()
    return float(seconds), int(kilobytes) / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    ways = {name: program for name, program in WAYS.items() if not name.startswith("curl") or shutil.which("curl")}

    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as folder:
        source, digest = Path(folder) / "source", hashlib.sha256()
        with source.open("wb") as stream:
            for _ in range(options.megabytes):
                block = os.urandom(10**6)
                digest.update(block)
                stream.write(block)
        with subprocess.Popen([sys.executable, "-c", SERVER, source], stdout=subprocess.PIPE, text=True) as server:
            url = f"http://127.0.0.1:{server.stdout.readline().strip()}/model.usema"
            try:
                for _ in range(options.rounds):
                    for name, program in ways.items():
                        target = Path(folder) / "target"
                        arguments = [url, str(target), str(options.megabytes * 10**6), digest.hexdigest()]
                        found[name].append(measure(program, arguments))
                        target.unlink()
            finally:
                server.terminate()

    best = {name: tuple(map(min, zip(*rounds, strict=True))) for name, rounds in found.items()}
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} threads, load {os.getloadavg()[0]:.0f}"
    rows = [
        f"| {datetime.date.today()} | {machine} | {options.megabytes} | {name} | {seconds:.2f} "
        f"({seconds / best['usema'][0]:.2f}) | {memory:.0f} ({memory / best['usema'][1]:.2f}) | {options.rounds} |"
        for name, (seconds, memory) in best.items()
    ]
    print("\n".join(rows))
    if options.write:
        if not RESULTS.exists():
            RESULTS.write_text(HEADER, encoding="utf-8")
        with RESULTS.open("a", encoding="utf-8") as stream:
            stream.write("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
