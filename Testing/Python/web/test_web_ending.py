"""However `usema web` is ended, no server stays, and nothing of the volumes that were opened."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys

import pytest

pytest.importorskip("trame_slicer", reason="the browser front end (extra `web`) is not installed")

COMMAND = [sys.executable, "-m", "usema", "web", "--no-browser"]
ENDS = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


@pytest.mark.slow(1)
@pytest.mark.skipif(os.name == "nt", reason="Windows has other ways to end a process")
@pytest.mark.parametrize("end", ENDS)
def test_nothing_stays_when_it_is_ended_by(end, root, tmp_path):
    sample = root / "Resources/Samples/hippocampus_149.nii.gz"
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [*COMMAND, str(sample)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment, preexec_fn=as_in_a_terminal
    ) as process:
        try:
            port = next(found[1] for line in process.stdout if (found := re.search(r"http://127.0.0.1:(\d+)", line)))
            assert list(tmp_path.glob("usema-web-*"))
            process.send_signal(getattr(signal, end))
            assert process.wait(60) == 128 + getattr(signal, end)
        finally:
            process.kill()
    assert not list(tmp_path.glob("usema-web-*"))
    assert not served(int(port))


def as_in_a_terminal() -> None:
    """Tests that run under nohup or behind a shell's `&` ignore some of these, and what they start would, too."""
    for end in ENDS:
        signal.signal(getattr(signal, end), signal.SIG_DFL)


def served(port: int) -> bool:
    with socket.socket() as asked:
        return asked.connect_ex(("127.0.0.1", port)) == 0
