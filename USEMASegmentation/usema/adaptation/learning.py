"""A copy of a part's network that learns from lessons; the part's own stays as it is."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ..errors import Cancelled
from ..inference.loading import LoadedPart
from ..models.delta import Delta
from .fitting import STAGE, Recipe, Sheet, fit
from .lesson import Lesson, Slice
from .parameters import has_heads, head_of, learned, networks_of, norms
from .truth import UNKNOWN

MOST_TILES = 12  # that are learned from; of more, those with most of what is known
ANCHOR_TILES = 3  # without any correction, at the most


@dataclass(frozen=True, eq=False)
class Learned:
    """Attributes:
    network: a copy that has learned.
    parameters: what is new in it, by name.
    deep: more than the heads have learned.
    steps: how many it took.
    """

    network: nn.Module
    parameters: dict[str, nn.Parameter]
    deep: bool
    steps: int

    def delta(self, part: LoadedPart, said: dict[str, str]) -> Delta:
        """What is new, under the names that the file of weights has."""
        tensors = {}
        prefixes = dict(zip((prefix for prefix, _ in networks_of(self.network)), part.part.prefixes, strict=True))
        for name, parameter in self.parameters.items():
            own = next(prefix for prefix in sorted(prefixes, reverse=True) if name.startswith(prefix))
            tensors[prefixes[own] + name[len(own) :]] = parameter.detach().cpu().float().clone()
        return Delta(tensors, said)


def recipe_for(network: nn.Module, wished: Recipe) -> Recipe:
    """The recipe that was wished for; of a network whose heads cannot learn alone, one by which more learns."""
    return wished if wished.deep or has_heads(network) else STAGE


def learn(
    part: LoadedPart,
    lessons: Sequence[Lesson],
    overlap: float,
    device: torch.device,
    recipe: Recipe,
    seed: int,
    *,
    without: Slice | None = None,
    step_done: Callable[[int], None] = lambda step: None,
    should_stop: Callable[[], bool] | None = None,
) -> Learned:
    """Learns from the corrected slices of the lessons.

    Args:
        overlap: of the tiles of the run that is to come: what is learned on them holds there.
        recipe: as ``recipe_for`` gives it.
        without: a slice that counts as not corrected.
        step_done: called with the number of each step.
        should_stop: asked at each step, and at each tile before.

    Raises:
        Cancelled: ``should_stop`` said so.
        InputError: the network has nothing that could learn.
    """

    def check() -> None:
        if should_stop is not None and should_stop():
            raise Cancelled("Learning was stopped.")

    network = copy.deepcopy(part.network).to(device).eval()
    deep, parameters = recipe.deep, learned(network, recipe.deep)
    scales = {id(parameter) for norm in norms(network) for parameter in norm.parameters(recurse=False)}
    sheets: list[Sheet] = []
    for lesson in lessons:
        sheets += _sheets(network, part, lesson, overlap, device, recipe, deep, seed, without, check)

    def logits_of(one: Sheet, image: torch.Tensor) -> torch.Tensor:
        if deep:
            return network(image[None])[0].float().flatten(1)[:, one.voxels]
        return _from_maps(network, image)

    def done(step: int) -> None:
        check()
        step_done(step)

    if not deep:  # a step is to change calibrated logits as much whatever the size of the maps
        size = float(np.sqrt(np.mean([float(one.image.square().mean()) for one in sheets if one.image.numel()])))
        recipe = replace(recipe, rate=recipe.rate * float(np.mean(part.outputs.temperatures)) / max(size, 1e-6))
    of_norms = {name for name, parameter in parameters.items() if id(parameter) in scales}
    steps = fit(parameters, of_norms, sheets, logits_of, part.outputs, recipe, seed, done)
    return Learned(network, parameters, deep, steps)


def _from_maps(network: nn.Module, maps: torch.Tensor) -> torch.Tensor:
    """The logits (outputs, voxels) that the heads make of maps (features of all networks, voxels)."""
    total, several = None, list(networks_of(network))
    for (_, one), its in zip(several, maps.chunk(len(several)), strict=True):
        holder, name = head_of(one)
        head = holder.get_submodule(name)
        logits = functional.linear(its.T, head.weight.flatten(1), head.bias).T
        total = logits if total is None else total + logits
    return total / len(several)


@contextmanager
def _maps(network: nn.Module) -> Iterator[list[torch.Tensor]]:
    """What goes into the heads while the network runs, in the order of the networks."""
    found: list[torch.Tensor] = []
    hooks = []
    for _, one in networks_of(network):
        holder, name = head_of(one)
        head = holder.get_submodule(name)
        hooks.append(head.register_forward_pre_hook(lambda module, inputs: found.append(inputs[0])))
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def _sheets(network, part, lesson: Lesson, overlap, device, recipe, deep, seed, without, check) -> list[Sheet]:
    tiling = part.recipe.tiling.of(lesson.data.shape[1:], part.recipe.patch_size, overlap)
    data = tiling.pad(lesson.data)
    pads = [(cut.start, whole - cut.stop) for cut, whole in zip(tiling.crop, tiling.padded, strict=True)]
    known = np.pad(lesson.known(without), pads, constant_values=UNKNOWN)
    planar = len(part.recipe.patch_size) == 2
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    found = []
    for cut in _chosen([tiling.slices(tile) for tile in tiling.tiles], known, rng):
        check()
        image = torch.from_numpy(np.ascontiguousarray(data[(slice(None), *cut)])).float().to(device)
        labels = torch.from_numpy(np.ascontiguousarray(known[cut])).to(device)
        if planar:
            image, labels = image.squeeze(1), labels.squeeze(0)
        if deep:
            found.append(Sheet.of(image, labels, network(image[None])[0].float(), part.outputs, recipe, generator))
            continue
        with _maps(network) as maps:
            logits = network(image[None])[0].float()
        one = Sheet.of(image, labels, logits, part.outputs, recipe, generator)
        cached = torch.cat([_at(its[0], logits.shape[1:], one.voxels) for its in maps])
        found.append(replace(one, image=cached))
    return found


def _at(maps: torch.Tensor, shape: Sequence[int], voxels: torch.Tensor) -> torch.Tensor:
    """Maps (features, ...) at voxels of the logits; maps may go a little farther, where a network pads."""
    return maps[(slice(None), *(slice(0, length) for length in shape))].float().flatten(1)[:, voxels]


def _chosen(places: Sequence[tuple], known: np.ndarray, rng: np.random.Generator) -> list[tuple]:
    """The tiles to learn from: those that show most of what is known, and a few that show nothing of it."""
    amounts = [(int((known[cut] > 0).sum()), int((known[cut] != UNKNOWN).sum())) for cut in places]
    taught = sorted((one for one in range(len(places)) if amounts[one][1]), key=lambda one: amounts[one], reverse=True)
    others = [one for one in range(len(places)) if not amounts[one][1]]
    taught = taught[:MOST_TILES]
    count = min(ANCHOR_TILES, len(others), (len(taught) + 2) // 3)
    anchors = rng.choice(others, count, replace=False).tolist() if count else []
    return [places[one] for one in (*taught, *anchors)]
