"""What the worker can be asked for. Keeps the last model loaded; arrays travel as .npy files.

The requests and their answers are described in ``worker.py``. Nothing here is imported at file scope that takes long
or may be missing: the worker answers before torch is there, and can say why it is not.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from .. import imports
from ..errors import Cancelled, MissingDependencyError, OutputError
from ..files import whole_file
from ..models.bundle import METADATA_FILE, WEIGHTS_FILE, read_bundle
from ..models.delta import Delta
from ..store import expected
from . import learning, protocol
from .protocol import RunOptions, Send, field, throttled

if TYPE_CHECKING:
    import numpy as np

    from ..inference.predictor import Predictor
    from ..inference.result import Segmentation
    from ..inference.rough import RoughResults
    from ..volumes.volume import Volume


class Commands:
    """``by_name[command](request, send, should_stop)`` returns the last answer; ``send`` takes those before it.

    Raises:
        UsemaError: of any kind; a MissingDependencyError if the engine cannot be loaded.
    """

    def __init__(self):
        self.by_name = {"hello": self._hello, "load": self._load, "segment": self._segment, "adapt": self._adapt}
        self._predictor: Predictor | None = None
        self._rough: RoughResults | None = None  # outlives the model: several tasks begin with the same rough result
        self._loaded: tuple | None = None  # model, device and the state of the model's files

    def _hello(self, request: dict, send: Send, should_stop: Callable[[], bool]) -> dict:
        torch = _load_engine()
        from ..inference import cpu_engine
        from ..inference.device import available_devices, choose_device
        from ..inference.memory import free_memory
        from ..sema import choose

        device = choose_device()
        gpu = None
        if device.type == "cuda":
            free, total = torch.cuda.mem_get_info(device)
            gpu = {"name": torch.cuda.get_device_name(device), "total": total, "free": free}
        return {
            **protocol.hello(),
            "torch": torch.__version__,
            "device": str(device),
            "devices": available_devices(),
            "memory_bytes": free_memory(),
            "gpu": gpu,
            "attention": str(engine if (engine := cpu_engine.choose(device)).name == "openvino" else choose(device)),
        }

    def _load(self, request: dict, send: Send, should_stop: Callable[[], bool]) -> dict:
        started = time.monotonic()
        self._predictor_for(request, send)
        return {"event": "loaded", "model": request["model"], "seconds": time.monotonic() - started}

    def _segment(self, request: dict, send: Send, should_stop: Callable[[], bool]) -> dict:
        started = time.monotonic()
        _load_engine()
        options, folder = RunOptions.of_request(request), Path(field(request, "output", str))
        volumes = [_open_input(entry) for entry in field(request, "inputs", list)]
        predictor = self._predictor_for(request, send, field(request, "delta", str, ""))
        _check_output(folder, _needed(predictor, volumes, options))

        def preview(labels: np.ndarray) -> None:
            if getattr(volumes[0], "stored", None) is None:  # a slice that was turned has its result soon
                send(event="preview", labels=_write(folder / "preview.npy", labels))

        result = predictor.segment(
            volumes,
            overlap=options.overlap,
            speed=options.speed,
            preview=preview,
            mirror=options.mirror,
            probabilities=options.probabilities,
            margins=options.margins,
            labels=_texts(request, "labels"),
            progress=throttled(send),
            should_stop=should_stop,
        )
        if should_stop():
            raise Cancelled("The segmentation was stopped.")
        print(f"{result.provenance['model']}: {result.provenance['times']}", file=sys.stderr)
        if not _texts(request, "labels"):
            expected.remember(predictor.metadata.name, float(result.provenance["seconds"]))
        return _answer(result, volumes[0], folder, started)

    def _adapt(self, request: dict, send: Send, should_stop: Callable[[], bool]) -> dict:
        started = time.monotonic()
        _load_engine()
        from ..adaptation.adapting import adapt

        options, folder = RunOptions.of_request(request), Path(field(request, "output", str))
        volumes = [_open_input(entry) for entry in field(request, "inputs", list)]
        corrections = learning.corrections_of(field(request, "corrections", dict))
        wish = learning.wish_of(request, options, _texts(request, "labels"))
        predictor = self._predictor_for(request, send)
        _check_output(folder, _needed(predictor, volumes, options))
        adapted = adapt(
            predictor,
            volumes,
            corrections,
            wish,
            progress=learning.throttled_by_phase(send),
            estimated=lambda estimate: send(event="estimate", **vars(estimate)),
            should_stop=should_stop,
        )
        if should_stop():
            raise Cancelled("Learning was stopped.")
        delta = None
        if adapted.delta is not None:
            content = adapted.delta.to_bytes()
            delta = _written(folder / "delta.safetensors", lambda stream: stream.write(content))
        return {
            **_answer(adapted.segmentation, volumes[0], folder, started), "delta": delta, "adaptation": adapted.report
        }  # fmt: skip

    def _predictor_for(self, request: dict, send: Send, delta: str = "") -> Predictor:
        """The last one, unless another model, device or delta is asked for, or the model's files have changed."""
        path, device = Path(field(request, "model", str)), RunOptions.of_request(request).device
        wanted = (path, device, _state(path), delta and (delta, _state(Path(delta))))
        bundle = read_bundle(path)
        if wanted != self._loaded:
            send(event="loading", model=str(path))
            _load_engine()
            from ..inference.predictor import Predictor
            from ..inference.rough import RoughResults
            from ..store.library import find_model

            self._predictor = self._loaded = None  # two models at a time may not fit into memory
            if self._rough is None:
                self._rough = RoughResults()
            learned = Delta.read(Path(delta)) if delta else None
            self._predictor = Predictor(
                bundle, device, lambda name: read_bundle(find_model(name)), self._rough, learned
            )
            self._loaded = wanted
        return self._predictor


def _objects(result: Segmentation) -> np.ndarray | None:
    """The number of the object of each pixel; None: the model splits nothing into objects."""
    return None if result.image is None else result.image.objects


def _answer(result: Segmentation, first: Volume, folder: Path, started: float) -> dict:
    """The last answer to a request for labels, on the grid of its first volume; what it names has been written."""
    from ..inference.result import as_stored

    result = as_stored(result, first)
    kept, margins, objects = result.probabilities, result.margins, _objects(result)
    return {
        "event": "result",
        "margins": None if margins is None else _write_text(folder / "margins.txt", margins.to_text()),
        "labels": _write(folder / "labels.npy", result.labels),
        "objects": None if objects is None else _write(folder / "objects.npy", objects),
        "names": [label.name for label in result.model_labels],
        "probabilities": None if kept is None else _write(folder / "probabilities.npy", kept),
        "geometry": result.geometry.to_dict(),
        "provenance": result.provenance,
        "warnings": result.warnings,
        "max_foreground_probability": float(result.max_foreground_probability),
        "seconds": time.monotonic() - started,
        "seconds_by_speed": result.seconds_by_speed,
    }


def _needed(predictor: Predictor, volumes: list[Volume], options: RunOptions) -> int:
    """Bytes of the files: labels take at most 2 bytes a voxel, probabilities 2 a voxel and class."""
    voxel_bytes = 2 + (2 * predictor.num_classes if options.probabilities else 0)
    return voxel_bytes * max((volume.array.size for volume in volumes), default=0)


def _load_engine():
    """Imports what computes, and returns torch.

    Raises:
        MissingDependencyError: a package is missing or, as OSError, one of its libraries.
    """
    try:
        with imports.at_once():
            import torch

            from ..inference import predictor  # noqa: F401
    except (ImportError, OSError) as error:
        raise MissingDependencyError(
            f"What computes segmentations cannot be loaded: {error}.", "Install PyTorch and what else is missing."
        ) from error
    return torch


def _state(model: Path) -> tuple:
    """What tells whether a bundle's files have changed, without reading them."""
    files = [model / METADATA_FILE, model / WEIGHTS_FILE] if model.is_dir() else [model]
    return tuple((path.stat().st_mtime_ns, path.stat().st_size) for path in files if path.exists())


def _open_input(entry: dict) -> Volume:
    """Maps a .npy file into memory; the predictor checks that it holds a volume on its geometry."""
    path, geometry = (entry.get("array"), entry.get("geometry")) if isinstance(entry, dict) else (None, None)
    if not isinstance(path, str) or not isinstance(geometry, dict):
        raise protocol.ProtocolError(f"{entry!r:.200} is no input.", "An input has an array and a geometry.")
    import numpy as np

    from ..volumes.pictures import Picture, turned_upright
    from ..volumes.volume import Geometry, Volume

    array = protocol.open_array(path)
    geometry, picture = Geometry.from_dict(geometry), entry.get("picture")
    if picture is None:
        return Volume(np.asarray(array), geometry)
    if not isinstance(picture, dict) or not isinstance(picture.get("pixel_size_known", False), bool):
        raise protocol.ProtocolError(f"{picture!r:.200} is no picture.", "It says whether pixel_size_known is true.")
    known = picture.get("pixel_size_known", False)
    return turned_upright(Picture(np.asarray(array), geometry, pixel_size_known=known))


def _texts(request: dict, name: str) -> list[str]:
    values = field(request, name, list, [])
    if not all(isinstance(value, str) for value in values):
        raise protocol.ProtocolError(f"{name!r} of the request is {values!r:.200}.", "It is a list of texts.")
    return values


def _check_output(folder: Path, needed: int) -> None:
    """Refuses, before minutes of computing, a folder that will not take the results."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            free = shutil.disk_usage(folder).free
    except OSError as error:
        raise OutputError(f"Nothing can be written to {folder}: {error.strerror}.", "Choose another folder.") from error
    if free < needed:
        raise OutputError(
            f"The disk of {folder} is too full: {free / 2**20:.0f} MiB are free, {needed / 2**20:.0f} are needed.",
            "Delete what is not needed, or crop the volume.",
        )


def _write(path: Path, array: np.ndarray) -> str:
    import numpy as np

    return _written(path, lambda stream: np.save(stream, array, allow_pickle=False))


def _write_text(path: Path, text: str) -> str:
    return _written(path, lambda stream: stream.write(text.encode()))


def _written(path: Path, write: Callable[[BinaryIO], object]) -> str:
    """Under its name, the file is complete or not there."""
    try:
        with whole_file(path) as temporary, temporary.open("wb") as stream:
            write(stream)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}.", "Is the disk full?") from error
    return str(path)
