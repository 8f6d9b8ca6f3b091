"""Trainer classes with which nnU-Net v2 trains USEMA, in 2D and 3D: the plan decides which.

nnU-Net keeps planning, preprocessing, augmentation, loss and validation; the classes here put in the network, and add
what a small machine needs: a time budget, bfloat16 on CPUs that compute it, weights beside each checkpoint as
safetensors. Environment variables (nnU-Net's command line passes no options to a trainer):

    USEMA_MINUTES   train this long in all, resumed runs counted together; the learning rate falls to 0 by then
    USEMA_ITERATIONS  train for so many iterations, rounded up to whole epochs; fewer than an epoch has are one epoch
    USEMA_START     a bundle whose weights to start from
    USEMA_SEED      seed of weights, patches and augmentation (default 0, not negative); each of nnU-Net's loader
                    processes draws from a seed of its own that is made from it
    USEMA_THREADS   threads of PyTorch on a CPU (default: every core)
"""

from __future__ import annotations

import json
import math
import os
import random
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from safetensors.torch import save_file

from ..errors import InputError
from ..files import through_links, whole_file
from ..models.bundle import read_bundle
from ..models.region_rules import FINDER_PREFIX
from ..networks import ARCHITECTURES
from ..quality.labelled_cases import names_sha256
from . import cpu_bfloat16
from .seeding import seeded_workers

SECONDS_BETWEEN_PICTURES = 120.0

# The function by which NumPy pickles a number; its module was renamed in NumPy 2.
_numpy_scalar = np.float32(0).__reduce__()[0]


def checkpoint_file(path: Path) -> AbstractContextManager[Path]:
    """``whole_file`` under one name: what a killed training left is written over by the next, and does not gather."""
    file = through_links(path)
    return whole_file(file, file.with_name(f"{file.name}.part"))


class PolynomialDecay:
    """nnU-Net's learning rate, initial * (1 - epoch / epochs) ** 0.9.

    nnU-Net 2.5's own class cannot be built with torch 2.7 and newer, and its length cannot follow a time budget.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, initial_lr: float, epochs: int):
        self.optimizer, self.initial_lr, self.epochs = optimizer, initial_lr, epochs

    def step(self, epoch: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.initial_lr * (1 - epoch / self.epochs) ** 0.9


class nnUNetTrainerUSEMA(nnUNetTrainer):
    """nnU-Net's own recipe with the USEMA network of the plan: every stage has a SEMA block.

    A variant is a subclass that changes the class attributes; another architecture says what it takes from the plan.
    """

    architecture = "USEMA"  # of usema.networks
    switches: ClassVar[dict] = {}  # fields of the network's configuration that differ from their defaults
    width = 1.0  # channels of each stage, over the plan's

    @classmethod
    def from_plan(cls, arch_init_kwargs: dict) -> dict:
        """The fields of the network's configuration that an nnU-Net plan decides."""
        return {
            "features": [round(channels * cls.width) for channels in arch_init_kwargs["features_per_stage"]],
            "kernels": arch_init_kwargs["kernel_sizes"],
            "strides": arch_init_kwargs["strides"],
        }

    @classmethod
    def build_network_architecture(
        cls,
        architecture_class_name: str,
        arch_init_kwargs: dict,
        arch_init_kwargs_req_import,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> torch.nn.Module:
        network, config = ARCHITECTURES[cls.architecture]
        channels = {"in_channels": num_input_channels, "num_classes": num_output_channels}
        description = config.from_dict({**channels, **cls.from_plan(arch_init_kwargs), **cls.switches})
        axes = len(arch_init_kwargs["kernel_sizes"][0])
        if description.axes != axes:
            raise InputError(
                f"{cls.architecture} is a {description.axes}D network, and the plan's configuration is {axes}D.",
                f"Train it with the configuration {'2d' if description.axes == 2 else '3d_fullres'}.",
            )
        return network(description, deep_supervision=enable_deep_supervision)

    def bare_network(self) -> torch.nn.Module:
        """The network itself, without what distributed training and torch.compile wrap around it."""
        network = self.network.module if self.is_ddp else self.network
        return getattr(network, "_orig_mod", network)

    def set_deep_supervision_enabled(self, enabled: bool):
        self.bare_network().deep_supervision = enabled

    def initialize(self):
        self.seed = int(os.environ.get("USEMA_SEED", "0"))
        own = self.seed + self.local_rank  # of several GPUs each draws other patches; weights come from the first
        random.seed(own)
        np.random.seed(own)  # noqa: NPY002 - without processes, nnU-Net's loaders draw from the global generator
        torch.manual_seed(self.seed)
        if "USEMA_THREADS" in os.environ:
            # nnU-Net takes every core; with others at work on the machine that is many times slower than one core.
            torch.set_num_threads(int(os.environ["USEMA_THREADS"]))
        self.cpu_bfloat16 = self.device.type == "cpu" and cpu_bfloat16.pays()
        if "USEMA_ITERATIONS" in os.environ:
            iterations = int(os.environ["USEMA_ITERATIONS"])
            self.num_iterations_per_epoch = min(self.num_iterations_per_epoch, iterations)
            self.num_val_iterations_per_epoch = min(self.num_val_iterations_per_epoch, iterations)
            self.num_epochs = math.ceil(iterations / self.num_iterations_per_epoch)
        super().initialize()
        if self.cpu_bfloat16:
            cpu_bfloat16.spare_narrow_convolutions(self.network)
            cpu_bfloat16.hasten_depthwise_convolutions(self.network)
        self.started_from = {}
        if "USEMA_START" in os.environ:
            self.start_from(os.environ["USEMA_START"])
        self.logger.plot_progress_png = self._seldom(self.logger.plot_progress_png)

    def _seldom(self, draw: Callable[[str], None]) -> Callable[[str], None]:
        """nnU-Net draws progress.png after every epoch: of one of 50 iterations on a CPU, that is 3 seconds in 40."""
        drawn = -math.inf

        def draw_seldom(folder: str) -> None:
            nonlocal drawn
            if self.current_epoch + 1 >= self.num_epochs or time.monotonic() - drawn > SECONDS_BETWEEN_PICTURES:
                draw(folder)
                drawn = time.monotonic()

        return draw_seldom

    def start_from(self, path: str) -> None:
        """Start from the weights of a bundle instead of random ones.

        Raises:
            InputError: its network is another one.
        """
        bundle = read_bundle(path)
        weights = bundle.load_weights()  # what finds the regions of whole volumes is not trained here
        weights = {name: value for name, value in weights.items() if not name.startswith(FINDER_PREFIX)}
        there, wanted = (
            {name: list(value.shape) for name, value in each.items()}
            for each in (weights, self.bare_network().state_dict())
        )
        if there != wanted:
            other = min(name for name in there.keys() | wanted.keys() if there.get(name) != wanted.get(name))
            trained_by = bundle.metadata.training.get("trainer", "the one that the bundle was trained with")
            raise InputError(
                f"{path} cannot start this training: its network is another one. Of {other}, it has "
                f"{there.get(other, 'nothing')}, and {type(self).__name__} {wanted.get(other, 'nothing')}.",
                f"Choose its trainer (command line: --trainer {trained_by}), or start without it.",
            )
        self.bare_network().load_state_dict(weights)
        self.started_from = {"started_from": f"{bundle.metadata.name} {bundle.metadata.version}"}

    def on_train_start(self):
        if not self.was_initialized:
            self.initialize()  # nnU-Net would start its loaders before it, hence before the seeds are set
        if getattr(self, "unpack_dataset", False):
            # nnU-Net 2.5 starts its loaders before it unpacks what they read, so they can meet half a file.
            if self.local_rank == 0:
                from nnunetv2.training.dataloading.utils import unpack_dataset

                folder = self.preprocessed_dataset_folder
                unpack_dataset(folder, unpack_segmentation=True, num_processes=1, verify_npy=True)
            if self.is_ddp:
                torch.distributed.barrier()
        super().on_train_start()

    def get_dataloaders(self):
        # A run that goes on draws others than at its start.
        with seeded_workers(self.seed, self.local_rank, self.current_epoch):
            return super().get_dataloaders()

    def make_optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(
            self.network.parameters(), self.initial_lr, weight_decay=self.weight_decay, momentum=0.99, nesterov=True
        )

    def make_schedule(self, optimizer: torch.optim.Optimizer):
        return PolynomialDecay(optimizer, self.initial_lr, self.num_epochs)

    def configure_optimizers(self):
        optimizer = self.make_optimizer()
        return optimizer, self.make_schedule(optimizer)

    # -- time budget ------------------------------------------------------------------------------------------------

    @property
    def budget_seconds(self) -> float | None:
        minutes = float(os.environ.get("USEMA_MINUTES", "0"))
        return minutes * 60 if minutes > 0 else None

    def seconds_trained(self) -> float:
        """Time spent in finished epochs. nnU-Net keeps the time stamps in its checkpoints, so resumed runs count."""
        log = self.logger.my_fantastic_logging
        stamps = zip(log["epoch_start_timestamps"], log["epoch_end_timestamps"], strict=False)
        return sum(end - start for start, end in stamps)

    def on_epoch_start(self):
        if self.budget_seconds is not None:
            # nnU-Net counts epochs. Turn the time into epochs, so that its polynomial schedule ends with the budget.
            done, spent = self.current_epoch, self.seconds_trained()
            if done:
                self.num_epochs = max(done + 1, math.floor(self.budget_seconds / (spent / done)))
                self.lr_scheduler.epochs = self.num_epochs
        super().on_epoch_start()

    def run_training(self):
        if self.budget_seconds is None:
            return super().run_training()
        # nnU-Net's loop, but `num_epochs` is asked for anew after each epoch.
        self.on_train_start()
        while self.current_epoch < self.num_epochs and self.seconds_trained() < self.budget_seconds:
            self.on_epoch_start()
            self.on_train_epoch_start()
            self.on_train_epoch_end(
                [self.train_step(next(self.dataloader_train)) for _ in range(self.num_iterations_per_epoch)]
            )
            with torch.no_grad():
                self.on_validation_epoch_start()
                self.on_validation_epoch_end(
                    [self.validation_step(next(self.dataloader_val)) for _ in range(self.num_val_iterations_per_epoch)]
                )
            self.on_epoch_end()
        self.on_train_end()

    # -- bfloat16 on CPUs -------------------------------------------------------------------------------------------

    def _autocast(self):
        return torch.autocast("cpu", torch.bfloat16, enabled=self.cpu_bfloat16)

    def train_step(self, batch: dict) -> dict:
        with self._autocast():
            return super().train_step(batch)

    def validation_step(self, batch: dict) -> dict:
        with self._autocast():
            return super().validation_step(batch)

    def make_loss(self):
        return super()._build_loss()

    def _build_loss(self):
        loss = self.make_loss()
        if not self.cpu_bfloat16:
            return loss

        def in_float32(output, target):
            with torch.autocast("cpu", enabled=False):
                return loss([x.float() for x in output] if isinstance(output, list) else output.float(), target)

        return in_float32

    # -- checkpoints ------------------------------------------------------------------------------------------------

    def load_checkpoint(self, filename_or_checkpoint) -> None:
        # nnU-Net 2.5 keeps NumPy numbers in its checkpoints, which torch 2.6 and newer refuse to load unless allowed.
        numbers = [_numpy_scalar, np.dtype, *(type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i8"))]
        with torch.serialization.safe_globals(numbers):
            super().load_checkpoint(filename_or_checkpoint)

    def save_checkpoint(self, filename: str) -> None:
        """As nnU-Net, and the weights beside it; each file is whole or as it was, also where the disk is full."""
        if self.local_rank != 0 or self.disable_checkpointing:
            super().save_checkpoint(filename)  # says so
            return
        with checkpoint_file(Path(filename)) as path:
            super().save_checkpoint(str(path))
        state = self.bare_network().state_dict()
        weights = {name: value.detach().cpu().contiguous() for name, value in state.items()}
        with checkpoint_file(Path(filename).with_suffix(".safetensors")) as path:
            save_file(weights, path, metadata=self._description())

    def _description(self) -> dict[str, str]:
        """What an export needs to know beside the weights; safetensors holds text by name."""
        epochs = self.current_epoch + 1
        training, validation = self.do_split()
        described = {
            "architecture": {"name": self.architecture, "config": self.bare_network().config.to_dict()},
            "inference": {"mirror_axes": list(self.inference_allowed_mirroring_axes or ())},
            "training": {
                "dataset": self.plans_manager.dataset_name,
                "cases": len(training),
                "validation_cases": len(validation),
                "cases_sha256": names_sha256(training),
                "validation_cases_sha256": names_sha256(validation),
                "framework": f"nnU-Net {version('nnunetv2')}",
                "trainer": type(self).__name__,
                **self.started_from,
                "configuration": self.configuration_name,
                "fold": self.fold,
                "iterations": epochs * self.num_iterations_per_epoch,
                "batch_size": self.batch_size,
                "minutes": round(self.seconds_trained() / 60),
                "seed": self.seed,
                "date": date.today().isoformat(),
            },
        }
        return {name: json.dumps(value) for name, value in described.items()}


class AdamWInShortEpochs(nnUNetTrainerUSEMA):
    """AdamW, and epochs of 50 iterations, so that a schedule that moves once per epoch follows short budgets."""

    def initialize(self):
        self.weight_decay = 1e-2
        self.num_iterations_per_epoch = 50
        self.num_val_iterations_per_epoch = 6
        self.save_every = 1
        super().initialize()

    def make_optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.network.parameters(), self.initial_lr, weight_decay=self.weight_decay)


class nnUNetTrainerUSEMASmall(AdamWInShortEpochs):
    """The recipe of the accuracy experiment: small enough for two CPU cores and for the repository.

    Half the plan's channels and one residual block (two convolutions) per stage; no SEMA block at full resolution,
    where on a CPU it costs as much as all other stages together; AdamW, which needs fewer iterations than SGD; no
    mirroring, because the labels (front, back) are told apart by their place.
    """

    switches: ClassVar[dict] = {"sema_stages": "skip_full_resolution", "blocks": 1}
    width = 0.5

    def initialize(self):
        self.initial_lr = 1e-3
        super().initialize()

    def _set_batch_size_and_oversample(self):
        super()._set_batch_size_and_oversample()
        self.batch_size = min(self.batch_size, 2 if len(self.configuration_manager.patch_size) == 3 else 32)

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self):
        *others, axes = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        self.inference_allowed_mirroring_axes = self.mirrored_axes(axes)
        return *others, self.inference_allowed_mirroring_axes

    def mirrored_axes(self, axes: tuple[int, ...]) -> tuple[int, ...] | None:
        """Of the axes of a patch that nnU-Net would mirror, those that this recipe does."""
        return None
