"""Pictures that a person judges a segmentation by: nothing in them covers anything else."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from usema.inference.result import Segmentation
from usema.models.metadata import Label
from usema.quality import pictures
from usema.volumes.geometry import Geometry
from usema.volumes.volume import Volume


def case(count: int, name: str) -> tuple[Volume, Segmentation]:
    """A volume with so many labels in it."""
    rng = np.random.default_rng(0)
    geometry = Geometry((24, 30, 20), (1, 1, 1), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    labels = rng.integers(0, count + 1, geometry.shape).astype(np.uint8)
    named = tuple(Label(value, f"{name} {value}", (9 * value % 256, 200, 90), {}) for value in range(1, count + 1))
    return Volume(rng.random(geometry.shape, np.float32), geometry), Segmentation(
        labels, geometry, named, None, 1.0, {}
    )


@pytest.mark.parametrize(
    ("count", "name"), [(2, "Liver"), (17, "Cerebellum white matter"), (60, "Rib"), (9, "A name " * 12)]
)
def test_the_legend_lies_below_the_slices_whole(count, name, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    drawn = []
    monkeypatch.setattr(pictures, "write_png", lambda path, figure, **options: drawn.append(figure))
    assert pictures.write_preview(tmp_path / "p.png", *case(count, name)) == []
    (figure,) = drawn
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    (legend,) = (one.get_window_extent(canvas.get_renderer()) for one in figure.legends)
    slices = [axes.get_window_extent() for axes in figure.axes]
    assert len(figure.legends[0].get_texts()) == count
    assert legend.y1 <= min(one.y0 for one in slices)
    assert legend.y0 >= 0
    assert len(name) > 60 or (legend.x0 >= 0 and legend.x1 <= figure.bbox.width)
    assert min(one.height for one in slices) == pytest.approx(240.7, abs=0.1)  # whatever the legend takes


def run_with(backend: str, code: str, *arguments) -> str:
    """What a new process prints whose environment names this backend, as that of a notebook does."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = {**os.environ, "MPLBACKEND": backend, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "not_installed_here"])
@pytest.mark.parametrize("picture", ["preview", "plot"])
def test_a_picture_is_drawn_whatever_backend_a_notebook_names(picture, backend, tmp_path):
    pytest.importorskip("matplotlib")
    code = """
import sys
from test_calibration import calibrated_voxels
from test_pictures import case
from usema.quality.calibration import calibrate, write_plot
from usema.quality.pictures import write_preview

if sys.argv[1] == "preview":
    write_preview(sys.argv[2], *case(2, "Liver"))
else:
    write_plot(sys.argv[2], calibrate([calibrated_voxels(seed, 500) for seed in range(4)]), "title")
"""
    run_with(backend, code, picture, tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_who_plots_after_a_preview_has_the_backend_that_was_named(tmp_path):
    pytest.importorskip("matplotlib")
    code = """
import os
import sys
from pathlib import Path
from usema.quality import pictures

pictures.check_preview(Path(sys.argv[1]), False)
import matplotlib.pyplot
print(os.environ["MPLBACKEND"], matplotlib.get_backend())
"""
    assert run_with("svg", code, tmp_path / "p.png").split() == ["svg", "svg"]
