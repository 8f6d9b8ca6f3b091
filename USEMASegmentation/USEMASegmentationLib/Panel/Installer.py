"""What the workers need beyond 3D Slicer's own Python, and how it gets there: asked first, never while loading.

PyTorch comes through the PyTorch extension, which knows the computer's GPU and driver; the rest through pip. Nothing
here imports torch: that would keep its files open, and a later update would fail on Windows.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import re
import sys
from dataclasses import dataclass

import qt
import slicer
from slicer.i18n import tr as _
from usema.errors import Cancelled, MissingDependencyError

AFTER_RESTART = "USEMA/InstallAfterRestart"  # in the settings: "online", or the folder to install from
ONLINE = "online"


@dataclass(frozen=True)
class Requirement:
    package: str
    version: tuple[int, int]  # the least that does
    title: str

    @property
    def specifier(self) -> str:
        return ">={}.{}".format(*self.version)

    def installed(self) -> str | None:
        try:
            return importlib.metadata.version(self.package)
        except importlib.metadata.PackageNotFoundError:
            return None

    def isMet(self) -> bool:
        version = self.installed()
        # None also where an interrupted installation left a folder without a version
        return version is not None and tuple(map(int, re.findall(r"\d+", version)[:2])) >= self.version

    def words(self) -> str:
        found = self.installed()
        state = _("{version} is installed").format(version=found) if found else _("not installed")
        return f"{self.title} {self.specifier} ({state})"


TORCH = Requirement("torch", (2, 4), "PyTorch")
SEGMENTING = (TORCH, Requirement("safetensors", (0, 4), "safetensors"))
STORING = tuple(  # what it takes to download and keep models: small, and in pure Python
    Requirement(package, version, package)
    for package, version in (
        ("filelock", (3, 12)),
        ("platformdirs", (4, 0)),
        ("requests", (2, 31)),
        ("truststore", (0, 9)),
        ("urllib3", (2, 2)),
    )
)
TRAINING_SET = (Requirement("nibabel", (5, 0), "nibabel"),)  # what it takes to write one, and to read it again
REQUIREMENTS = (*SEGMENTING, *STORING)
FASTER = Requirement("openvino", (2025, 0), "OpenVINO")  # never needed; see usema.inference.cpu_engine


class Installer:
    """Finds and installs what is missing."""

    def missing(self, requirements: tuple[Requirement, ...] = SEGMENTING) -> list[Requirement]:
        importlib.invalidate_caches()
        return [requirement for requirement in requirements if not requirement.isMet()]

    def missingForStore(self) -> list[Requirement]:
        """What downloading and keeping models lacks."""
        return self.missing(STORING)

    def words(self) -> str:
        """What segmenting lacks, as a sentence; empty if nothing."""
        missing = [requirement.words() for requirement in self.missing()]
        return _("Segmenting needs {packages}.").format(packages=_(" and ").join(missing)) if missing else ""

    def isPending(self) -> bool:
        """Whether the user agreed to an installation that waits for a restart."""
        return bool(qt.QSettings().value(AFTER_RESTART))

    def install(self, folder: str = "") -> None:
        """Installs all that is missing. Asks, unless the user agreed before a restart or named a folder.

        Args:
            folder: of wheel files; then nothing is downloaded.

        Raises:
            Cancelled: the user does not want to.
            MissingDependencyError: it did not work; says what to do.
        """
        pending = qt.QSettings().value(AFTER_RESTART)
        qt.QSettings().remove(AFTER_RESTART)
        if pending and not folder:
            folder = "" if pending == ONLINE else pending
        elif not folder and not self._agreed():
            raise Cancelled(_("Nothing was installed."))
        missing = self.missing(REQUIREMENTS)
        if TORCH in missing and "torch" in sys.modules:
            self._continueAfterRestart(
                folder,
                _("PyTorch {version} is in use and cannot be replaced now.").format(version=TORCH.installed()),
                _("Restart 3D Slicer and open this module first: the installation then goes on."),
            )
        self._install(missing, folder)

    def installForStore(self, agreed: bool = False) -> None:
        """Installs what downloading and keeping models lacks; a few hundred KB, and no torch.

        Args:
            agreed: the user was asked already.

        Raises:
            Cancelled: the user does not want to.
            MissingDependencyError: it did not work; says what to do.
        """
        self._installSmall(STORING, _("under 1 MB"), agreed)

    def installForTrainingSet(self) -> None:
        """Installs what adding to a training set lacks. Asks first.

        Raises:
            Cancelled: the user does not want to.
            MissingDependencyError: it did not work; says what to do.
        """
        self._installSmall(TRAINING_SET, _("about 5 MB"))

    def _installSmall(self, requirements: tuple[Requirement, ...], size: str, agreed: bool = False) -> None:
        missing = self.missing(requirements)
        if not missing:
            return
        text = _("This needs {packages}.\n\nInstall that into 3D Slicer's Python now, from pypi.org ({size})?")
        text = text.format(packages=", ".join(one.title for one in missing), size=size)
        if not agreed and not slicer.util.confirmOkCancelDisplay(text, windowTitle="USEMA Segmentation"):
            raise Cancelled(_("Nothing was installed."))
        self._install(missing)

    def installFaster(self) -> None:
        """Installs what computes networks faster on a CPU. Asks first.

        Raises:
            Cancelled: the user does not want to.
            MissingDependencyError: it did not work; says what to do.
        """
        text = _(
            "OpenVINO computes networks on this computer's processor in about half the time, with the same labels: the "
            "first tile is compared each time. It is free (Apache-2.0) and takes 180 MB on the disk. What it would "
            "report to its makers is switched off.\n\nInstall it into 3D Slicer's Python now, from pypi.org?"
        )
        if not slicer.util.confirmOkCancelDisplay(text, windowTitle="USEMA Segmentation"):
            raise Cancelled(_("Nothing was installed."))
        self._install([FASTER])

    def _install(self, missing: list[Requirement], folder: str = "") -> None:
        try:
            if folder:
                self._pip(["--no-index", "--find-links", folder, *(one.package + one.specifier for one in missing)])
            else:
                self._fromTheInternet(missing)
        except MissingDependencyError:
            raise
        except Exception as error:  # pip's and the extension's own, of any kind
            message = _("The installation failed: {error}").format(error=error)
            raise MissingDependencyError(message, self._help(missing)) from error
        if left := self.missing(tuple(missing)):
            words = _(" and ").join(one.words() for one in left)
            raise MissingDependencyError(_("Still missing: {packages}.").format(packages=words), self._help(left))

    def _agreed(self) -> bool:
        text = _(
            "{what}\n\nThis downloads between 200 MB and 3 GB, depending on the computer's GPU, and installs it into "
            "3D Slicer's Python. It may take some minutes.\n\nInstall now?"
        )
        return slicer.util.confirmOkCancelDisplay(text.format(what=self.words()), windowTitle="USEMA Segmentation")

    def _fromTheInternet(self, missing: list[Requirement]) -> None:
        if TORCH in missing:
            try:
                import PyTorchUtils
            except ModuleNotFoundError:
                self._continueAfterRestart(
                    "",
                    _("The extension PyTorch is not installed."),
                    _("Install it with View > Extensions Manager and restart 3D Slicer: this then goes on by itself."),
                )
            # The extension blocks the application while it works.
            slicer.util.showStatusMessage(_("Installing PyTorch; this takes some minutes"))
            slicer.app.processEvents()
            logic = PyTorchUtils.PyTorchUtilsLogic()
            logic.installTorch(askConfirmation=False, torchVersionRequirement=TORCH.specifier)
        others = [one.package + one.specifier for one in missing if one is not TORCH]
        if others:
            self._pip(others)

    @staticmethod
    def _pip(arguments: list[str]) -> None:
        try:
            from slicer.packaging import pip_install  # since 5.12: shows progress and keeps the application alive
        except ImportError:
            slicer.util.pip_install(arguments)
        else:
            pip_install(arguments, requester="USEMA Segmentation")

    @staticmethod
    def _continueAfterRestart(folder: str, message: str, hint: str) -> None:
        qt.QSettings().setValue(AFTER_RESTART, folder or ONLINE)
        raise MissingDependencyError(message, hint)

    @staticmethod
    def _help(missing: list[Requirement]) -> str:
        forAll = any(one in SEGMENTING for one in missing)  # then the panel offers Install from folder
        packages = " ".join(one.package for one in (REQUIREMENTS if forAll else missing))
        text = _(
            "The Python console shows pip's own words. Without internet access: on another computer with the same "
            "operating system and 3D Slicer, run 'PythonSlicer -m pip download {packages} -d wheels', copy the "
            "folder wheels here, and "
        )
        if forAll:
            text += _("choose Install from folder.")
        else:
            text += _("run 'PythonSlicer -m pip install --no-index --find-links wheels {packages}'.")
        return text.format(packages=packages)
