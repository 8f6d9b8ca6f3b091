"""`usema doctor`: what runs here, in a form that can be pasted without patient data."""

from __future__ import annotations

import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import click

from .. import __version__
from ..errors import UsemaError

PACKAGES = (
    "torch",
    "triton",
    "openvino",
    "numpy",
    "scipy",
    "SimpleITK",
    "safetensors",
    "nnunetv2",
    "monai",
    "matplotlib",
)


@click.command()
def doctor() -> None:
    """Report versions, devices, memory, the attention backend with its reason, and the models that are here."""
    for name, value in report_lines():
        click.echo(f"{name:<12} {value}")


def report_lines() -> list[tuple[str, str]]:
    """(what, value) pairs; the user's home folder is written as ~."""
    import torch

    from ..inference.device import available_devices, choose_device, describe
    from ..inference.memory import free_memory
    from ..sema import choose

    lines = [("usema", __version__), ("python", platform.python_version()), ("system", platform.platform())]
    lines += [(package, _version(package)) for package in PACKAGES]
    lines += [("cuda", torch.version.cuda or "not in this PyTorch")]
    for device in map(torch.device, available_devices()):
        free = free_memory(str(device)) if device.type != "mps" else None
        memory = f", {free / 2**30:.1f} GiB free" if free is not None else ""
        lines.append(("device", f"{describe(device)}{memory}"))
    automatic = choose_device("auto")
    lines.append(("attention", f"{choose(automatic)} on {automatic}"))
    lines.append(("cpu engine", _cpu_engine()))
    return lines + _models()


def _cpu_engine() -> str:
    """What computes networks on this computer's CPU: tried with the bundled model."""
    from ..inference import cpu_engine, openvino_engine
    from ..inference.predictor import Predictor
    from ..models.bundle import read_bundle
    from ..resources import bundled_models

    try:
        choice = cpu_engine.choose("cpu")
        if choice.name == "openvino":
            (part,) = Predictor(read_bundle(bundled_models()["hippocampus-mr"]), "cpu").parts
            choice = part.try_engine()
            if openvino_engine.computes_bfloat16():
                return f"{choice}; with --speed fast: {part.try_engine(fast=True)}"
    except (UsemaError, KeyError) as error:
        return str(error)
    return str(choice)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _models() -> list[tuple[str, str]]:
    from ..models.bundle import read_bundle
    from ..resources import bundled_models, resources_folder
    from ..store import cache

    try:
        lines = [("resources", _without_home(resources_folder()))]
    except UsemaError as error:
        return [("resources", _without_home(error))]
    here = {**bundled_models(), **{f"{one.name} (installed)": one.path for one in cache.installed()}}
    for name, path in here.items():
        try:
            bundle = read_bundle(path)
            bundle.verify()
            lines.append(("model", f"{name} {bundle.metadata.version}, weights verified"))
        except UsemaError as error:
            lines.append(("model", _without_home(f"{name}: {error}")))
    return lines + _store()


def _store() -> list[tuple[str, str]]:
    from ..store import cache, indexes
    from ..store.faults import shown

    try:
        folder = cache.folder()
        lines = [("cache", f"{_without_home(folder)}, {cache.size_of(folder) / 1e6:.1f} MB")]
        for source in indexes.sources():
            count = len(source.index.entries) if source.index else "no"
            lines.append(
                ("index", f"{shown(_without_home(source.place))}: {source.title}, {count} models, {source.age}")
            )
    except UsemaError as error:
        return [("cache", _without_home(error))]
    return lines


def _without_home(text: object) -> str:
    """The text with the user's home folder, and nothing that only begins like it, written as ~."""
    try:
        home = Path.home()
    except RuntimeError:  # a user id without a name, and HOME is not set
        return str(text)
    if home == Path(home.anchor):  # "/" is in every path
        return str(text)
    return re.sub(re.escape(str(home)) + r"(?![\w-]|\.\w)", "~", str(text))
