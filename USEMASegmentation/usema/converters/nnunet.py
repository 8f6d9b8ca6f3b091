"""nnU-Net 2: results folders, their zips, and lone checkpoints, made into bundles.

    Dataset004_Hippocampus/nnUNetTrainer__nnUNetPlans__3d_fullres/
        plans.json, dataset.json, dataset_fingerprint.json, fold_0/checkpoint_final.pth, fold_1/..., fold_all/...
        crossval_results_folds_0_1_2_3_4/postprocessing.json

A checkpoint holds plans and dataset.json as well, so it is enough alone. Its configuration is what it says itself, not
what its folder is called. Which trainer it was does not matter, if its tensors are exactly those of the plans.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from ..errors import BundleError, InputError
from ..models.bundle import Bundle
from ..models.checkpoint import open_checkpoint
from . import nnunet_bundle
from .nnunet_plans import V1_HINT, Described, describe
from .nnunet_weights import Training, has_batch_norm, is_nnunet, refuse_misfit
from .source import Source, ZipSource

if TYPE_CHECKING:
    import numpy as np

    from . import Options, Work

FORMAT = "nnU-Net v2"
_CHECKPOINTS = ("final", "best", "latest")
_CHECKPOINT = re.compile(r"checkpoint_(final|best|latest)\.pth")
_FOLD = re.compile(r"fold_(\w+)")


@dataclass(frozen=True)
class Trained:
    """One configuration that was trained: what is in its folder.

    Attributes:
        key, short, summary: see ``usema.converters.Model``.
        folder: its place in the source, "" for the root.
        folds: fold -> checkpoint ("final", ...) -> place of the file.
    """

    key: str
    short: str
    folder: str
    folds: dict[str, dict[str, str]] = field(hash=False)

    @property
    def summary(self) -> str:
        if list(self.folds) == [""]:
            return "one checkpoint"
        return f"fold{'s' if len(self.folds) > 1 else ''} {', '.join(self.folds)}"

    def file(self, name: str) -> str:
        """The place of a file of its folder."""
        return f"{self.folder}/{name}" if self.folder else name


@dataclass
class Network:
    """A configuration that was read.

    Attributes:
        described: what its plans say, with the normalisation that its weights have.
        weights: fold -> tensors.
        trainings: fold -> what is known of the training; its file is closed.
    """

    trained: Trained
    described: Described
    weights: dict[str, dict[str, np.ndarray]]
    training: Training
    places: list[str]
    kind: str


def models(source: Source) -> list[Trained]:
    """Every configuration with a checkpoint. Raises BundleError for what is nnU-Net's and cannot be used."""
    found: dict[str, dict[str, dict[str, str]]] = {}
    lone = []
    for place in source.files:
        path = PurePosixPath(place)
        fold, checkpoint = _FOLD.fullmatch(path.parent.name), _CHECKPOINT.fullmatch(path.name)
        if path.suffix != ".pth" or "__MACOSX" in path.parts:
            continue
        if checkpoint and fold:
            found.setdefault(str(path.parent.parent), {}).setdefault(fold[1], {})[checkpoint[1]] = place
        elif checkpoint and len(source.files) > 1:  # a fold's folder itself, or files that were put together
            found.setdefault(str(path.parent), {}).setdefault("", {})[checkpoint[1]] = place
        else:
            lone.append(place)
    folders = [folder.removeprefix(".") for folder in sorted(found)]
    trained = [_trained(source, folder, found[folder or "."], folders) for folder in folders]
    problems = []
    for place in lone:
        try:
            if _is_checkpoint(source, place):
                folder = str(PurePosixPath(place).parent).removeprefix(".")
                trained.append(Trained(place, PurePosixPath(place).stem, folder, {"": {"final": place}}))
        except BundleError as problem:  # beside others it may be of another program
            problems.append(problem)
    if not trained:
        _explain(source)
    if problems and not trained:
        raise problems[0]
    return trained


def convert(source: Source, chosen: Sequence[Trained], folder: Path, options: Options, work: Work) -> Bundle:
    """See ``usema.converters.Converter``. Cascades bring the configuration whose labels they need."""
    everything = models(source)
    networks = []
    for trained in chosen:
        network = read(source, trained, folder, options, work)
        if network.described.previous:
            before = _previous(source, everything, trained, network.described.previous)
            networks.append(read(source, before, folder, options, work))
        networks.append(network)
    work.on_to("Writing the model")
    return nnunet_bundle.write(source, chosen, networks, folder, options, work)


def _key(folder: str) -> str:
    """Dataset and configuration, where a folder is deeper."""
    return "/".join(PurePosixPath(folder).parts[-2:])


def _trained(source: Source, folder: str, folds: dict[str, dict[str, str]], folders: Sequence[str]) -> Trained:
    name = folder or source.name
    alone = sum(_key(other) == _key(folder) for other in folders) == 1
    key = (_key(folder) if alone else folder) or name
    return Trained(key, PurePosixPath(name).name.rpartition("__")[2], folder, dict(sorted(folds.items())))


def _is_checkpoint(source: Source, place: str) -> bool:
    """Whether a file of any name is one; in a zip, where it would have to be unpacked, its name has to tell."""
    if isinstance(source, ZipSource):
        return False
    with source.on_disk(place, source.path) as file, open_checkpoint(file, source.shown(place)) as checkpoint:
        return is_nnunet(checkpoint.content)


def _explain(source: Source) -> None:
    """Raises BundleError if this is nnU-Net's, but not a model that can be imported."""
    names = {PurePosixPath(place).name for place in source.files}
    if "plans.pkl" in names or any(name.endswith((".model", ".model.pkl")) for name in names):
        raise BundleError(f"{source.path} is a model of nnU-Net 1 (plans.pkl, *.model).", V1_HINT)
    if "plans.json" in names:
        raise BundleError(
            f"{source.path} has nnU-Net's plans.json, but no checkpoint.",
            "Name the results folder, with fold_0/checkpoint_final.pth in it; nnU-Net's preprocessed folder has no "
            "weights.",
        )


def _folds(trained: Trained, options: Options, work: Work) -> list[str]:
    here = list(trained.folds)
    wanted = [fold.removeprefix("fold_") for fold in options.folds]
    missing = [fold for fold in wanted if fold not in here]
    if missing:
        raise InputError(
            f"{trained.key} has no fold {missing[0]}.",
            f"It has: {', '.join(fold or 'one checkpoint' for fold in here)}.",
        )
    if wanted:
        return list(dict.fromkeys(wanted))
    default = "all" if "all" in here else here[0]
    if len(here) > 1:
        work.report(
            f"{trained.key} has the folds {', '.join(here)}: {default} was taken. All of them, averaged, may be a "
            f"little better and take {len(here)} times as long (command line: --folds {','.join(here)})."
        )
    return [default]


def read(source: Source, trained: Trained, folder: Path, options: Options, work: Work) -> Network:
    """Reads the checkpoints of a configuration, one a fold."""
    weights, network = {}, None
    for fold in _folds(trained, options, work):
        kind, place = _checkpoint_of(trained, fold, options, work)
        where = source.shown(place)
        work.on_to(f"Reading {PurePosixPath(place).name} of {trained.short}")
        with source.on_disk(place, folder.parent) as file, open_checkpoint(file, where) as checkpoint:
            training = Training(checkpoint)
            described = _described(source, trained, training, where)
            weights[fold] = training.weights()
        if has_batch_norm(weights[fold]):
            described.architecture["config"] |= {"norm": "batch", "norm_affine": True}
        refuse_misfit(weights[fold], described.architecture, where, training.trainer)
        if network is None:
            network = Network(trained, described, weights, training, [place], kind)
        elif network.described != described:
            raise BundleError(
                f"{trained.key}: the folds {', '.join(weights)} are of different networks.",
                "Choose folds of one training.",
            )
        else:
            network.places.append(place)
    return network


def _checkpoint_of(trained: Trained, fold: str, options: Options, work: Work) -> tuple[str, str]:
    """Which checkpoint of a fold is taken, and its place."""
    here = trained.folds[fold]
    if options.checkpoint in here:
        return options.checkpoint, here[options.checkpoint]
    other = next(kind for kind in _CHECKPOINTS if kind in here)
    which = f" of its fold {fold}" if fold else ""
    work.report(f"{trained.key} has no {options.checkpoint} checkpoint{which}: the {other} one was taken.")
    return other, here[other]


def _described(source: Source, trained: Trained, training: Training, where: str) -> Described:
    """By the files beside a checkpoint, else by what it holds itself. Both have to tell the same."""
    inside = outside = None
    places = [trained.file("plans.json"), trained.file("dataset.json")]
    if training.plans and training.dataset:
        inside = describe(training.plans, training.dataset, training.configuration, where)
    if all(map(source.has, places)):
        plans, dataset = map(source.json, places)
        if not isinstance(plans, dict) or not isinstance(dataset, dict):
            raise BundleError(f"{source.shown(places[0])} or dataset.json is no table of settings.", "Get them again.")
        outside = describe(plans, dataset, training.configuration, source.shown(trained.folder))
    if inside is None and outside is None:
        raise BundleError(
            f"{where} does not say how its network is built, and there is no plans.json and dataset.json beside it.",
            "Name the folder that has them.",
        )
    if inside and outside:
        for name, what in _HAS_TO_AGREE.items():
            if getattr(inside, name) != getattr(outside, name):
                raise BundleError(
                    f"{source.shown(trained.folder)}: plans.json or dataset.json was changed after training: the "
                    f"{what} is another than in {where}.",
                    "Get the files of the training, or name the checkpoint alone: it holds its own.",
                )
    return outside or inside


_HAS_TO_AGREE = {
    "architecture": "network",
    "preprocessing": "preprocessing",
    "region_order": "order of regions",
    "previous": "cascade",
}


def _previous(source: Source, everything: Sequence[Trained], trained: Trained, configuration: str) -> Trained:
    """The trained configuration whose labels a cascade needs: of the same dataset, trainer and plans."""
    parent, prefix = str(PurePosixPath(trained.folder).parent), PurePosixPath(trained.folder).name.rpartition("__")[0]
    beside = [other for other in everything if str(PurePosixPath(other.folder).parent) == parent]
    beside = [other for other in beside if other.short == configuration]
    same = [other for other in beside if PurePosixPath(other.folder).name.rpartition("__")[0] == prefix]
    for found in (same, beside):
        if len(found) == 1:
            return found[0]
    raise BundleError(
        f"{trained.key} is the second stage of a cascade, after '{configuration}', which is not in {source.path}.",
        "Name the dataset's folder, with both in it; or import 3d_fullres or 3d_lowres, which work alone.",
    )
