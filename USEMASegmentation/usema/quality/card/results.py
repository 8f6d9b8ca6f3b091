"""What was measured, case by case: kept in ``card/cases.json``, from which a card is made without running the model."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...errors import BundleError, InputError
from ...files import replace_file
from ...models.bundle import Bundle
from ...models.card_files import CASES_FILE

FIRST_LOOK = "first look"  # what the speed "preview" shows before its result
_MEASURE = "Measure it: usema card BUNDLE --images FOLDER --labels FOLDER"


@dataclass(frozen=True)
class Units:
    """What figures of a card are in.

    Attributes:
        length, size: units of lengths, and of volumes or areas.
        element, extent: what a case consists of, and what a segment has.
        decimals: of a size.
    """

    length: str
    size: str
    element: str
    extent: str
    decimals: int

    def number(self, size: float, sign: str = "") -> str:
        return f"{size:{sign}.{self.decimals}f}"

    def amount(self, size: float) -> str:
        return f"{self.number(size)} {self.size}"


VOLUMES, IMAGES = Units("mm", "ml", "voxel", "volume", 2), Units("pixels", "pixels", "pixel", "area", 0)


@dataclass(frozen=True)
class LabelResult:
    """One label in one case. Of an image, what is called mm or ml counts pixels.

    Attributes:
        dice, surface_dice, hausdorff95_mm: as ``quality.metrics.compare_masks`` has them: all NaN where the label is
            in neither reference nor result; 0, 0 and infinity where it is in one only.
        missing_ml: of the reference and not of the result, by what the result has there ("background" or a label).
        added_ml: of the result and not of the reference, by what the reference has there.
    """

    label: str
    dice: float
    surface_dice: float
    hausdorff95_mm: float
    reference_ml: float
    predicted_ml: float
    missing_ml: dict[str, float] = field(default_factory=dict)
    added_ml: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class SpeedResult:
    """One case at one speed, or its first look: the mean Dice of the labels, and how many tiles were run."""

    speed: str
    dice: float
    tiles: int


@dataclass(frozen=True)
class CaseResult:
    """One case; ``intensity_type`` and ``intensity_range`` are of the file's voxels, of the first channel.

    ``speeds`` has "exact" first, and the others where there is more than one tile; it is empty in older files.
    """

    case: str
    seconds: float
    intensity_type: str
    intensity_range: tuple[float, float]
    spacing_mm: tuple[float, float, float]
    labels: tuple[LabelResult, ...]
    speeds: tuple[SpeedResult, ...] = ()

    @property
    def dice(self) -> float:
        """The mean Dice of the labels that are there; NaN if none is."""
        values = [label.dice for label in self.labels if not math.isnan(label.dice)]
        return sum(values) / len(values) if values else math.nan


@dataclass(frozen=True)
class Pictured:
    """One of the worst cases: the mean Dice if its reference is moved to fit best, by one voxel at most, and where to.

    A reference that was displaced on its way looks like a poor result; this tells the two apart.
    """

    case: str
    moved_dice: float
    moved_to: str


@dataclass(frozen=True)
class Results:
    """A measurement.

    Attributes:
        weights_sha256: of the weights that were measured.
        machine: device and cores, in words.
        left_out: the cases are known to be those that the training left out: the validation cases of its own fold.
        cases_from: where the cases came from, in words.
        pictured: the cases in ``PICTURES``, the worst first.
        images: the cases are images, which may not know how large a pixel is: lengths and areas are in pixels.
    """

    weights_sha256: str
    engine: str
    date: str
    machine: str
    tolerance_mm: float
    left_out: bool
    cases_from: str
    cases: tuple[CaseResult, ...]
    pictured: tuple[Pictured, ...]
    images: bool = False

    @property
    def units(self) -> Units:
        return IMAGES if self.images else VOLUMES

    def of_label(self, name: str) -> list[tuple[CaseResult, LabelResult]]:
        """The cases that have a label, in the reference or the result."""
        pairs = [(case, label) for case in self.cases for label in case.labels if label.label == name]
        return [(case, label) for case, label in pairs if not math.isnan(label.dice)]


def write_results(folder: Path, results: Results) -> None:
    """Writes ``card/cases.json`` of a bundle's folder, whole or not at all. What is not finite is written as null."""
    text = json.dumps(_without_infinity(asdict(results)), indent=1, ensure_ascii=False, allow_nan=False)
    replace_file(folder / CASES_FILE, (text + "\n").encode("utf-8"))


def read_results(bundle: Bundle) -> Results:
    """Reads ``card/cases.json`` of a bundle's folder.

    Raises:
        InputError: the bundle was never measured, or with other weights.
        BundleError: the file is damaged.
    """
    path = Path(bundle.path) / CASES_FILE
    if not path.is_file():
        raise InputError(f"{bundle.path} has no measured cases ({CASES_FILE}).", _MEASURE)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        cases = tuple(_case(case) for case in document.pop("cases"))
        pictured = tuple(Pictured(**case) for case in document.pop("pictured"))
        results = Results(**document, cases=cases, pictured=pictured)
        if not cases or {shown.case for shown in pictured} - {case.case for case in cases}:
            raise ValueError("cases are missing")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{path} is not what `usema card` writes: {error!r}.", _MEASURE) from error
    if results.weights_sha256 != bundle.metadata.weights["sha256"]:
        raise InputError(f"{path} was measured with other weights than those in {bundle.path}.", _MEASURE)
    return results


def _case(document: dict[str, Any]) -> CaseResult:
    labels = tuple(LabelResult(**_with_infinity(label)) for label in document["labels"])
    triples = {key: tuple(document[key]) for key in ("intensity_range", "spacing_mm")}
    speeds = tuple(SpeedResult(**_with_infinity(speed)) for speed in document.get("speeds", ()))
    return CaseResult(**{**document, **triples, "labels": labels, "speeds": speeds})


def _without_infinity(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_infinity(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_infinity(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _with_infinity(label: dict[str, Any]) -> dict[str, Any]:
    """A label, or a speed, as it was: without a Dice nothing could be measured, with one the distance was infinite."""
    unknown = math.nan if label["dice"] is None else math.inf
    metrics = [metric for metric in ("dice", "surface_dice", "hausdorff95_mm") if metric in label]
    return {**label, **{metric: unknown if label[metric] is None else label[metric] for metric in metrics}}
