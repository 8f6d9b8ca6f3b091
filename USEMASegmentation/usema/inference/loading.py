"""A part of a model, loaded: its networks with their weights, its recipe, and what its outputs mean."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from ..backends import Choice
from ..errors import BundleError, InputError
from ..models.bundle import Bundle
from ..models.delta import Delta
from ..models.parts import Part
from ..models.region_rules import FINDER_PREFIX
from ..networks import without_values
from ..networks.blocks import SEMABlock
from ..networks.mamba import SelectiveSSM
from ..scan import choose as choose_scan
from ..sema import Layer, choose
from ..volumes.geometry import Geometry
from .cpu_engine import CPUEngine
from .cpu_engine import choose as choose_engine
from .nnunet_recipe import NnUNetRecipe, Preprocessed
from .outputs import Outputs
from .preprocessing import Prepared, recipe_of
from .sliding_window import predict_logits, turned
from .speeds import FAST, overlap_between
from .tiling import Tiling
from .whole_volume import predict_whole, sees_whole_volumes, strips_of

TURNING_PAYS = 0.9  # of the logits that are held otherwise


class Ensemble(nn.Module):
    """The mean of the logits of several networks of one architecture (nnU-Net's folds)."""

    def __init__(self, networks: Sequence[nn.Module]):
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = self.networks[0](x).float()
        for network in self.networks[1:]:
            total = total + network(x).float()
        return total / len(self.networks)


class LabelsAsChannels(nn.Module):
    """A cascade's second network: its last input channel, labels, becomes one channel of zeros and ones for each.

    Made tile by tile, so that there is never a volume for each label.
    """

    def __init__(self, network: nn.Module, labels: int):
        super().__init__()
        self.network = network
        self.labels = labels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        image, previous = x[:, :-1], x[:, -1:]
        values = torch.arange(1, self.labels + 1, device=x.device).reshape(1, -1, *[1] * (x.ndim - 2))
        return self.network(torch.cat([image, (previous == values).to(image.dtype)], dim=1))


class LoadedPart:
    """One part of a model, ready to run.

    Args:
        part: what ``model.json`` says.
        labels: how many labels the model has.
        weights: of the whole model, by name.
        device: where it will run; the weights are on the CPU until then.
        identity: of the weights; what is compiled of a network is kept under it.

    Raises:
        BundleError: the preprocessing or the architecture is none that this engine knows, they do not fit together,
            or the weights do not fit the architecture.
    """

    def __init__(
        self,
        part: Part,
        labels: int,
        weights: Mapping[str, torch.Tensor],
        device: torch.device,
        identity: str,
    ):
        self.part = part
        self.outputs = Outputs.of(part, labels)
        self.recipe = recipe_of(part.preprocessing)
        if isinstance(self.recipe, NnUNetRecipe) and device.type != "cpu":
            self.recipe.device = device
        networks = [_loaded(part, prefix, weights) for prefix in part.prefixes]
        config = networks[0].config
        dimensions = len(self.recipe.patch_size)
        if config.axes != dimensions:
            raise BundleError(
                f"the network is {config.axes}D, its preprocessing plan {dimensions}D.", "Export the model again."
            )
        self._attention = _attention_backend(networks[0], part, dimensions, device)
        network = networks[0] if len(networks) == 1 else Ensemble(networks)
        as_channels = part.previous is not None and not self.recipe.previous_is_mask
        self.network = LabelsAsChannels(network, labels) if as_channels else network
        self._device = device
        self._identity = f"{identity} {part.name} {part.architecture}"
        self.take(self.network)

    def take(self, network: nn.Module, times: int = 1) -> None:
        """Compute this network from now on.

        Args:
            network: the part's own, or one made of it, which gives ``times`` as many channels.
        """
        self.network, self._channels = network, times * self.outputs.count
        self._engine = None
        if choose_engine(self._device).name == "openvino" and not sees_whole_volumes(network):
            self._engine = CPUEngine(network, self._identity if times == 1 else f"{self._identity} x {times}")

    @property
    def backend(self) -> str:
        """What computes the network, or what of it there is a choice for, and why: before a run what is planned."""
        if self._engine is None:
            return str(self._attention)
        choice = self._engine.choice
        if choice.name == "openvino":
            return str(choice)
        return str(replace(self._attention, reason=f"{self._attention.reason}; {choice.reason}"))

    def try_engine(self, fast: bool = False) -> Choice:
        """What computes the network on a CPU, found with one tile of noise however little there is to do."""
        torch.manual_seed(0)
        self._engine.prove(torch.randn(1, self.recipe.channels, *self.recipe.patch_size), fast)
        return self._engine.choice

    @property
    def in_bfloat16(self) -> bool:
        """Whether the last tiles were computed so."""
        return self._engine is not None and self._engine.in_bfloat16

    @property
    def name(self) -> str:
        """The part's; "" in a model without parts."""
        return self.part.name

    def mirror_axes(self, mirror: bool) -> tuple[int, ...]:
        """Along which axes copies are averaged if the user asks for it."""
        return tuple(self.part.inference["mirror_axes"]) if mirror else ()

    def overlap(self, wish: float | str | None) -> float:
        """The user's (see ``speeds.overlap_between``), or else the model's own."""
        return overlap_between(self.part.inference.get("overlap", 0.5), wish)

    def tiles(self, array: np.ndarray, geometry: Geometry) -> Callable[[float | str | None], int]:
        """For a case (channels, z, y, x) on ``geometry``: how many tiles there will be with an overlap, as ``overlap``
        takes it; planes without tiles."""
        shape = self.recipe.shape(array, geometry)
        if sees_whole_volumes(self.network):
            planes = shape[0] * len(strips_of(self.network, shape, self.recipe.takes_strips))
            return lambda wish: planes
        return lambda wish: self.recipe.tiling.of(shape, self.recipe.patch_size, self.overlap(wish)).count

    def logits(
        self,
        prepared: Prepared,
        *,
        overlap: float | str | None,
        mirror: bool,
        progress: Callable[[int, int, float | None], None] | None,
        should_stop: Callable[[], bool] | None,
        report: Callable[[str], None],
    ) -> Iterator[tuple]:
        """The slabs of logits of a prepared case, as its collector takes them; see ``predict_logits``."""
        if sees_whole_volumes(self.network):
            takes_strips = self.recipe.takes_strips
            slabs = predict_whole(
                self.network,
                prepared.data,
                strips_of(self.network, prepared.data.shape[1:], takes_strips),
                device=self._device,
                progress=progress,
                should_stop=should_stop,
            )
            return slabs if takes_strips else ((start, logits) for start, logits, _ in slabs)
        along = getattr(prepared, "along", 0)
        if self._engine is not None:
            shape, mirrored = prepared.data.shape[1:], 2 ** len(self.mirror_axes(mirror))
            tiling = self.recipe.tiling.of(shape, turned(self.recipe.patch_size, along), self.overlap(overlap))
            self._engine.expect(tiling.count * mirrored, fast=overlap == FAST)
        return predict_logits(
            self._engine or self.network,
            prepared.data,
            patch_size=self.recipe.patch_size,
            num_classes=self._channels,
            overlap=self.overlap(overlap),
            mirror_axes=self.mirror_axes(mirror),
            device=self._device,
            progress=progress,
            should_stop=should_stop,
            report=report,
            tiling_type=self.recipe.tiling,
            along=along,
        )

    def turned(self, prepared: Prepared, overlap: float | str | None) -> Prepared:
        """A case with that axis first along which the fewest logits are held: the longer, the smaller its planes.

        Never the last one, whose planes lie scattered in memory.
        """
        patch = self.recipe.patch_size
        if len(patch) != 3 or not isinstance(prepared, Preprocessed) or sees_whole_volumes(self.network):
            return prepared
        held = [
            Tiling.of(turned(prepared.data.shape[1:], along), turned(patch, along), self.overlap(overlap)).open_voxels
            for along in (0, 1)
        ]
        return prepared.turned(1) if held[1] < TURNING_PAYS * held[0] else prepared

    def leave_device(self) -> None:
        """Give the device's memory to the next part."""
        if self._device.type != "cpu":
            self.network.to("cpu")


def load_parts(bundle: Bundle, device: torch.device, delta: Delta | None = None) -> tuple[LoadedPart, ...]:
    """All parts of a model in the order in which they run.

    Args:
        delta: what the model has learned from corrections, in place of some of its weights.

    Raises:
        BundleError: as LoadedPart, naming the bundle; or its weights are damaged; or the delta belongs to others.
    """
    metadata = bundle.metadata
    weights, identity = bundle.load_weights(), metadata.weights["sha256"]
    if delta is not None:
        delta.check(metadata, {name: tuple(tensor.shape) for name, tensor in weights.items()})
        weights, identity = {**weights, **delta.tensors}, f"{identity} {delta.sha256}"
    if metadata.finder is not None:
        weights = {name: tensor for name, tensor in weights.items() if not name.startswith(FINDER_PREFIX)}
    return _loaded_parts(bundle, metadata.networks, len(metadata.labels), weights, device, identity)


def load_finder(bundle: Bundle, device: torch.device) -> LoadedPart:
    """The network that finds a model's regions, for a model that has one.

    Raises:
        BundleError: as ``load_parts``.
    """
    finder, weights = bundle.metadata.finder, bundle.load_weights()
    identity = bundle.metadata.weights["sha256"]
    return _loaded_parts(bundle, (finder,), len(finder.values) - 1, weights, device, identity)[0]


def _loaded_parts(
    bundle: Bundle,
    parts: Sequence[Part],
    labels: int,
    weights: Mapping[str, torch.Tensor],
    device: torch.device,
    identity: str,
) -> tuple[LoadedPart, ...]:
    try:
        return tuple(LoadedPart(part, labels, weights, device, identity) for part in parts)
    except BundleError as error:
        part = f"{bundle.path}: "
        raise BundleError(part + error.message, error.hint) from error


def _loaded(part: Part, prefix: str, weights: Mapping[str, torch.Tensor]) -> nn.Module:
    """A fold's network, of whose weights there is no second copy; compared with the architecture before."""
    try:
        network = without_values(part.architecture)
    except InputError as error:
        raise BundleError(error.message, error.hint) from error
    own = {name[len(prefix) :]: tensor for name, tensor in weights.items() if name.startswith(prefix)}
    expected = {name: tensor.shape for name, tensor in network.state_dict().items()}
    for name in sorted(expected.keys() | own.keys()):
        there, wanted = own[name].shape if name in own else None, expected.get(name)
        if there != wanted:
            raise BundleError(
                f"the weights do not fit the architecture: {prefix}{name} is {_described(there)} where "
                f"{_described(wanted)} is expected.",
                "Get the model again.",
            )
    network.load_state_dict(own, assign=True)
    return network.requires_grad_(False).eval()


def _described(shape: torch.Size | None) -> str:
    return "missing" if shape is None else f"of shape {tuple(shape)}"


def _attention_backend(network: nn.Module, part: Part, dimensions: int, device: torch.device) -> Choice:
    """What computes the network's SEMA attention, or the scan in its place, known before it runs."""
    kinds = {type(module) for module in network.modules()}
    if SelectiveSSM in kinds:
        scan = choose_scan(device)
        return replace(scan, reason=f"selective scan, {scan.reason}")
    if SEMABlock not in kinds:
        return Choice("eager", f"{part.architecture['name']} without SEMA attention")
    config = part.architecture["config"]
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    window = (config.get("window", 7),) * dimensions
    return choose(device, layer=Layer(dtype, window, config.get("head_dim", 32)))
