"""How the 2D models are trained on: X-rays as other devices and hospitals show them, objects at other magnifications.

The recipe of ``robust_2d`` changes exposure and view. Another hospital's films also differ in how they were processed
(tone curves, sharpening), framed (collimators, letters) and squeezed; another microscope shows cells at another size,
and then the rims by which touching cells are told apart must not become wider or vanish.
"""

from __future__ import annotations

import math
import random

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from scipy.ndimage import label, maximum_filter, uniform_filter

from ..measure.objects import rims
from .robust import OUTSIDE, Surroundings
from .robust_2d import nnUNetTrainerUSEMARobust2D, nnUNetTrainerUSEMARobust2DUpright


class ToneCurve(BasicTransform):
    """Passes the intensities through a random rising curve, clipped at both ends, and normalizes them again."""

    def apply(self, data_dict: dict, **params) -> dict:
        image = data_dict["image"]
        low, high = image.amin(), image.amax()
        if low == high:
            return data_dict
        inner = sorted(random.random() for _ in range(random.randint(1, 4)))
        ends = random.uniform(0, 0.2), random.uniform(0.75, 1)  # the window
        places = [ends[0], *(ends[0] + (ends[1] - ends[0]) * place for place in inner), ends[1]]
        levels = [0, *sorted(random.random() for _ in inner), 1]
        # Half way to a straight line: no contrast is lost altogether.
        levels = [(level + place) / 2 for level, place in zip(levels, [0, *inner, 1], strict=True)]
        curved = torch.from_numpy(np.interp(((image - low) / (high - low)).numpy(), places, levels)).to(image.dtype)
        return {**data_dict, "image": (curved - curved.mean()) / curved.std().clamp(min=1e-3)}


class LocalContrast(BasicTransform):
    """Raises or lowers what is finer than some 5 to 40 pixels, as the processing of X-ray devices does."""

    def apply(self, data_dict: dict, **params) -> dict:
        image = data_dict["image"]
        size = random.randint(5, 40)
        coarse = torch.from_numpy(uniform_filter(image.numpy(), (0, size, size), mode="nearest"))
        return {**data_dict, "image": image + random.uniform(-0.5, 1.5) * (image - coarse)}


class Collimator(BasicTransform):
    """Covers the picture's margins, up to an eighth of each side, with its darkest or brightest value or another."""

    def apply(self, data_dict: dict, **params) -> dict:
        image, labels = data_dict["image"].clone(), data_dict["segmentation"].clone()
        level = random.choice((image.amin(), image.amax(), random.uniform(-2, 2)))
        for axis in (1, 2):
            side = image.shape[axis]
            for start in (True, False):
                width = random.randint(1, max(1, side // 8))
                if random.random() < 0.5:
                    image.narrow(axis, 0 if start else side - width, width).fill_(level)
                    labels.narrow(axis, 0 if start else side - width, width).clamp_(max=0)
        return {**data_dict, "image": image, "segmentation": labels}


class Marks(BasicTransform):
    """Puts letters, plates and wires upon the picture; what was drawn on it stays."""

    def apply(self, data_dict: dict, **params) -> dict:
        image = data_dict["image"].clone()
        height, width = image.shape[1:]
        for _ in range(random.randint(1, 4)):
            kind, level = random.choice(("letters", "plate", "wire")), float(image.amax()) * random.uniform(0.6, 1.1)
            y, x = random.randrange(height), random.randrange(width)
            if kind == "wire":
                steps = torch.arange(random.randint(20, 120))
                angle, bend = random.uniform(0, 2 * math.pi), random.uniform(-0.02, 0.02)
                turned = angle + bend * steps
                rows = (y + turned.sin().cumsum(0)).long().clamp(0, height - 1)
                columns = (x + turned.cos().cumsum(0)).long().clamp(0, width - 1)
                image[:, rows, columns] = level
                continue
            rows, columns = random.randint(5, 14), random.randint(6, 40)
            part = image[:, y : y + rows, x : x + columns]
            ink = torch.rand(1, (rows + 1) // 2, (columns + 1) // 2) < (0.5 if kind == "letters" else 2)
            ink = ink.repeat_interleave(2, 1).repeat_interleave(2, 2)[:, : part.shape[1], : part.shape[2]]
            part[ink.expand_as(part)] = level
        return {**data_dict, "image": image}


class Numbers(BasicTransform):
    """Turns the labels inside (1) and rim (2) into a number for each object, which survives another magnification."""

    def apply(self, data_dict: dict, **params) -> dict:
        labels = data_dict["segmentation"]
        plane = labels[0].numpy()
        numbered, _ = label(plane == 1, np.ones((3, 3)))
        # Rims are two pixels wide at most: each takes the number beside it, twice, and once more around corners.
        for _ in range(3):
            numbered = np.where((plane == 2) & (numbered == 0), maximum_filter(numbered, 3), numbered)
        numbered[plane == OUTSIDE] = OUTSIDE
        return {**data_dict, "segmentation": torch.from_numpy(numbered)[None].to(labels.dtype)}


class Rims(BasicTransform):
    """Turns numbered objects into the labels inside (1) and rim (2), whose width is the same at every magnification."""

    def apply(self, data_dict: dict, **params) -> dict:
        numbered = data_dict["segmentation"]
        plane = numbered[0].numpy()
        labels = rims(np.maximum(plane, 0), plane != OUTSIDE).astype(np.int16)
        labels[plane == OUTSIDE] = OUTSIDE
        return {**data_dict, "segmentation": torch.from_numpy(labels)[None].to(numbered.dtype)}


def _magnification(*arguments, **options) -> float:
    """From 0.45 to 2.2 times the size, as often smaller as larger."""
    return math.exp(random.uniform(-math.log(2.2), math.log(2.2)))


def _spatial(every) -> int:
    return next(place for place, each in enumerate(every.transforms) if isinstance(each, SpatialTransform))


def _framed(every) -> int:
    """The place after which nothing lies outside the picture any more."""
    kinds = [type(getattr(each, "transform", each)) for each in every.transforms]
    return kinds.index(Surroundings) + 1


class nnUNetTrainerUSEMARobust2DUprightDevices(nnUNetTrainerUSEMARobust2DUpright):
    """Trains on for films of other devices: squeezed, framed, lettered, and processed otherwise."""

    @staticmethod
    def get_training_transforms(*arguments, **options):
        every = nnUNetTrainerUSEMARobust2DUpright.get_training_transforms(*arguments, **options)
        spatial = every.transforms[_spatial(every)]
        spatial.p_scaling, spatial.scaling, spatial.p_synchronize_scaling_across_axes = 0.7, (0.65, 1.6), 0.4
        framed = _framed(every)
        every.transforms[framed:framed] = [
            RandomTransform(transform, apply_probability=probability)
            for transform, probability in (
                (ToneCurve(), 0.5),
                (LocalContrast(), 0.25),
                (Collimator(), 0.2),
                (Marks(), 0.3),
            )
        ]
        return every


class nnUNetTrainerUSEMARobust2DObjects(nnUNetTrainerUSEMARobust2D):
    """Trains on for objects with rims, labels 1 and 2, at 0.45 to 2.2 times their size."""

    @staticmethod
    def get_training_transforms(*arguments, **options):
        every = nnUNetTrainerUSEMARobust2D.get_training_transforms(*arguments, **options)
        place = _spatial(every)
        spatial = every.transforms[place]
        spatial.p_scaling, spatial.scaling, spatial.mode_seg = 0.7, _magnification, "nearest"
        spatial.p_synchronize_scaling_across_axes = 0.9
        framed = _framed(every)
        every.transforms[framed:framed] = [RandomTransform(ToneCurve(), apply_probability=0.3)]
        every.transforms[place : place + 1] = [Numbers(), spatial, Rims()]
        return every
