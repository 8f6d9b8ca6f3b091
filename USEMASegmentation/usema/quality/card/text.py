"""The card itself: Markdown from ``model.json`` and measured cases."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ...errors import BundleError, OutputError
from ...files import replace_file
from ...inference.speeds import EXACT, FAST
from ...models.bundle import METADATA_FILE, Bundle
from ...models.card_files import CARD_FILE, CASES_FILE, PICTURES, RELIABILITY_PICTURE
from ...models.image_rules import RGB
from ...models.metadata import ModelMetadata
from ..metrics import METRICS
from .failures import failures
from .figures import SMALLEST_TO_DIVIDE, agreement, groups, speed_metrics, spread
from .results import FIRST_LOOK, CaseResult, LabelResult, Results, read_results

WARNING = "**Not a medical device. For research and teaching; a person must check every result.**"
FEW = 10  # a figure of fewer cases is marked
_FEW_NOTE = f"\\* fewer than {FEW} cases: too few to conclude anything from."
_CALIBRATION = {
    "ece": "expected calibration error",
    "nll": "negative log-likelihood",
    "brier": "Brier score",
}
_TITLES = {"dice": "Dice", "surface_dice": "surface Dice", "hausdorff95_mm": "HD95"}


def write_card(bundle: Bundle) -> Path:
    """Writes ``card.md`` into a bundle's folder, from what was measured before.

    Raises:
        InputError: the bundle was never measured, or with other weights.
        BundleError: what was measured cannot be read, or is no figure of this USEMA.
        OutputError: the folder cannot be written.
    """
    folder, results = Path(bundle.path), read_results(bundle)
    pictures = [name for name in (*PICTURES, RELIABILITY_PICTURE) if (folder / name).is_file()]
    try:
        text = render(bundle.metadata, results, pictures)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(
            f"{folder / METADATA_FILE} or {CASES_FILE} holds figures that no USEMA wrote: {error!r}.",
            "Measure the model again: usema card with --images and --labels, and usema calibrate.",
        ) from error
    try:
        replace_file(folder / CARD_FILE, text.encode("utf-8"))
    except OSError as error:
        raise OutputError(f"{folder / CARD_FILE} cannot be written: {error.strerror or error}.") from error
    return folder / CARD_FILE


def render(metadata: ModelMetadata, results: Results, pictures: Sequence[str]) -> str:
    """The card's text; it depends on the arguments alone, so that it comes out the same each time.

    Args:
        metadata: the model's own words.
        results: what was measured.
        pictures: those that are there, as paths from the bundle's folder; the others are not mentioned.
    """
    sections = [
        [f"# {metadata.title}: model card", f"> {WARNING}", _first_lines(metadata, results)],
        ["## What it does", metadata.description, _labels(metadata)],
        ["## Intended use", metadata.intended_use],
        ["## Limits", metadata.limits],
        ["## Input", *_input(metadata)],
        ["## Training", *_training(metadata)],
        ["## How it was evaluated", *_evaluation(results)],
        ["## Results", *_results(results)],
        ["## Measurements", *_measurements(metadata)],
        ["## Groups of cases", *_groups(results)],
        [f"## {results.units.extent.title()}s", *_sizes(results)],
        ["## Time", _time(results)],
        ["## Speeds", *_speeds(results)],
        ["## Calibration", *_calibration(metadata, pictures)],
        ["## Robustness", *_robustness(metadata)],
        ["## Where it fails", *failures(results, pictures)],
        ["## Weights, licence, citation", *_terms(metadata)],
    ]
    return "\n\n".join(block for section in sections if len(section) > 1 for block in section) + "\n"


def _first_lines(metadata: ModelMetadata, results: Results) -> str:
    network = metadata.architecture["name"]
    line = f"`{metadata.name}` {metadata.version}; network: {network}; licence: {metadata.licence['name']}."
    dice = [f"{name} {spread(pairs, 'dice').mean:.3f}" for name, pairs in _by_label(results)]
    if not 0 < len(dice) <= 8:
        return line
    return f"{line} Mean Dice on {_count(len(results.cases))}: {', '.join(dice)}."


def _labels(metadata: ModelMetadata) -> str:
    rows = []
    for label in metadata.labels:
        keys = ("type", "type_modifier", "region_modifier")
        codes = [label.terminology[key] for key in keys if key in label.terminology]
        rows.append((label.value, label.name, "; ".join(f"{c['scheme']} {c['value']} ({c['meaning']})" for c in codes)))
    return _table(("value", "segment", "code"), rows)


def _input(metadata: ModelMetadata) -> list[str]:
    low, high = metadata.expected_spacing_mm["min"], metadata.expected_spacing_mm["max"]
    spacing = " x ".join(f"{a:.3g}" if a == b else f"{a:.3g} to {b:.3g}" for a, b in zip(low, high, strict=True))
    network = metadata.preprocessing.get("spacing", [])
    intensity = metadata.expected_intensity_range
    if metadata.takes_images:
        side = metadata.preprocessing.get("fit", {}).get("longest_side")
        rows = [
            ("modality", metadata.modality),
            ("must show", metadata.anatomy),
            ("images", ", ".join(metadata.inputs)),
            ("colours", "red, green and blue" if metadata.input_colours == RGB else "luminance"),
            ("what the network sees", f"{side} pixels along the longest side" if side else "the image's own pixels"),
            ("usual values", f"{intensity[0]:g} to {intensity[1]:g}" if intensity else "any scale"),
        ]
        return [_table(("", ""), rows)]
    rows = [
        ("modality", metadata.modality),
        ("must show", metadata.anatomy),
        ("volumes", ", ".join(channel["name"] for channel in metadata.channels)),
        ("spacing seen in training / mm", spacing),
        ("voxels that the network sees / mm", " x ".join(f"{side:.3g}" for side in network)),
        ("usual voxel values", f"{intensity[0]:g} to {intensity[1]:g}" if intensity else "any scale"),
        ("order of axes", "any" if metadata.orientation else "as in training: volumes are not turned"),
    ]
    return [_table(("", ""), rows)]


def _training(metadata: ModelMetadata) -> list[str]:
    rows = [(key.replace("_", " "), value) for key, value in metadata.training.items()]
    return [_table(("", ""), rows), f"Data and licence: {_licence(metadata)}"]


def _evaluation(results: Results) -> list[str]:
    units = results.units
    return [
        f"{_count(len(results.cases))} ({results.cases_from}), on {results.date}, with USEMA {results.engine}. "
        f"{_whether_left_out(results.left_out)}",
        f"Dice is twice the shared {units.extent} divided by the sum of both {units.extent}s; 1 is best. Surface Dice "
        f"is the share of both surfaces that lies within {results.tolerance_mm:.3g} {units.length} of the other, "
        f"counted in {units.element}s of the surfaces, while published values mostly weigh them by area. HD95 is the "
        "95 % Hausdorff distance: apart from the farthest 5 %, the surfaces are nowhere farther apart. Intervals are "
        "95 % bootstrap intervals of the mean "
        "over cases; with few cases, or several of one person, they are too narrow." + _misses(results),
    ]


def _misses(results: Results) -> str:
    if all(math.isfinite(label.hausdorff95_mm) or math.isnan(label.dice) for _, label in _every(results)):
        return ""
    return (
        " Missed cases have the segment in the result or in the reference alone: they count with a Dice of 0, and are "
        "left out of the mean HD95."
    )


def _every(results: Results) -> list[tuple[CaseResult, LabelResult]]:
    return [(case, label) for case in results.cases for label in case.labels]


def _whether_left_out(left_out: bool) -> str:
    if left_out:
        return (
            "Training left these cases out, but they come from the same data set as those it saw; and unless the split "
            "kept each person's cases together, another case of the same person was trained on. Images of other "
            "hospitals and scanners may do worse, and were not measured."
        )
    return (
        "Whether training saw any of these cases is not known to whoever made this card. If it did, the figures are "
        "too good."
    )


def _count(cases: int) -> str:
    return f"{cases} case{'s' if cases != 1 else ''}"


def _marked(cases: int) -> str:
    """The number of cases, with a star if they are few; _FEW_NOTE explains it."""
    return f"{cases}{' *' if cases < FEW else ''}"


def _noted(blocks: list[str]) -> list[str]:
    return [*blocks, _FEW_NOTE] if " * |" in blocks[-1] else blocks


def _results(results: Results) -> list[str]:
    rows = []
    for name, pairs in _by_label(results):
        for metric in METRICS:
            found = spread(pairs, metric)
            mean, median, worst = (_metric(metric, value) for value in (found.mean, found.median, found.worst))
            if found.missed:
                mean += f" ({found.missed} missed)"
            between = _interval(metric, found.interval)
            rows.append(
                (
                    name,
                    _marked(len(pairs)),
                    _title(metric, results),
                    mean,
                    between,
                    median,
                    f"{worst} ({found.worst_case})",
                )
            )
    return _noted([_table(("segment", "cases", "", "mean", "95 % interval", "median", "worst case"), rows)])


def _title(metric: str, results: Results) -> str:
    return _TITLES[metric] + (f" / {results.units.length}" if metric == "hausdorff95_mm" else "")


def _groups(results: Results) -> list[str]:
    rows, units = [], results.units
    for name, pairs in _by_label(results):
        for group in groups(pairs, units):
            dice, surface, distance = (spread(group.members, metric) for metric in METRICS)
            means = (_metric("dice", dice.mean), _interval("dice", dice.interval), _metric("dice", surface.mean))
            distance = _metric("hausdorff95_mm", distance.median)
            rows.append((name, group.kind, group.name, _marked(len(group.members)), *means, distance))
    columns = ("segment", "by", "group", "cases", "mean Dice", "95 % interval", "mean surface Dice")
    columns = (*columns, f"median HD95 / {units.length}")
    note = (
        f"By how the file stores {units.element}s, and by the {units.extent} of the segment in the reference, in "
        f"thirds if there are {SMALLEST_TO_DIVIDE} cases or more. Age, sex, diagnosis and scanner are not in the "
        "files, and could not be looked at."
    )
    return _noted([note, _table(columns, rows)])


def _sizes(results: Results) -> list[str]:
    rows, units = [], results.units
    for name, pairs in _by_label(results):
        found = agreement(pairs)
        if found is not None:
            row = [name, _marked(found.cases), units.number(found.reference_ml)]
            for value in (found.difference_ml, *found.limits_ml):
                share = f" ({value / found.reference_ml:+.0%})" if found.reference_ml else ""
                row.append(f"{units.number(value, '+')}{share}")
            rows.append(row)
    columns = (
        "segment",
        "cases",
        *(f"{what} / {units.size}" for what in ("mean reference", "mean difference", "lower limit", "upper limit")),
    )
    note = (
        "Result minus reference, and its limits of agreement: mean ± 1.96 standard deviations, between which 95 % of "
        "cases are expected (Bland and Altman 1986)."
    )
    return _noted([note, _table(columns, rows)]) if rows else [f"One case says nothing of how {units.extent}s agree."]


def _time(results: Results) -> str:
    seconds = [case.seconds for case in results.cases]
    return (
        f"{statistics.median(seconds):.2f} s per case (median; {min(seconds):.2f} to {max(seconds):.2f} s) from "
        f"{'image' if results.images else 'volume'} to labels, with the model loaded and warm, on: {results.machine}."
    )


def _speeds(results: Results) -> list[str]:
    figures = speed_metrics(results)
    if not figures:
        return []
    several = figures["of_more_than_one_tile"]
    if not several:
        return ["Every case is a single tile: all speeds give the same result in the same time."]
    rows = [(EXACT, _marked(figures["cases"]), "100 %", f"{figures[EXACT]['dice']:.4f}", "", "")]
    for name in (FAST, FIRST_LOOK):
        if name in figures:
            found = figures[name]
            between = "too few cases" if found["low"] is None else f"{found['low']:+.4f} to {found['high']:+.4f}"
            difference = f"{found['difference']:+.4f} ({between})"
            rows.append(
                (
                    name,
                    _marked(found["cases"]),
                    f"{found['tiles']:.0%}".replace("%", " %"),
                    f"{found['dice']:.4f}",
                    difference,
                    f"{found['worst']:+.4f}",
                )
            )
    note = (
        "What `--speed` costs: mean Dice of all segments of a case; differences are paired, case by case. "
        f"{several} of {_count(figures['cases'])} have more than one tile; the others are the same at every speed. The "
        "result of `preview` is that of `exact`; its first look is shown until then, if it takes half as long at most."
    )
    columns = ("speed", "cases", "tiles", "mean Dice", "difference to exact (95 % interval)", "worst case")
    return _noted([note, _table(columns, rows)])


def _calibration(metadata: ModelMetadata, pictures: Sequence[str]) -> list[str]:
    found, temperature = metadata.metrics.get("calibration", {}), metadata.inference.get("temperature")
    rows = [
        (title, f"{found[key]:.4f}", f"{found[f'{key}_with_temperature']:.4f}")
        for key, title in _CALIBRATION.items()
        if f"{key}_with_temperature" in found
    ]
    if not rows or temperature is None:
        return []
    blocks = [
        "Whether the model is right as often as its probabilities say; lower is better. Its logits are divided by the "
        f"temperature {temperature:g}, which changes probabilities but no label. Measured on {_count(found['cases'])} "
        f"({found['cases_from']}; {found['region']}), each with a temperature fitted on the other half of them. "
        f"{_whether_left_out(found['left_out'])}",
        _table(("", "without temperature", "with temperature"), rows),
    ]
    if RELIABILITY_PICTURE in pictures:
        blocks.append(f"![Share of voxels that are right over the model's confidence]({RELIABILITY_PICTURE})")
    return blocks


def _robustness(metadata: ModelMetadata) -> list[str]:
    rows = [
        (row["change"], row["cases"], f"{row['dice_drop']:.3f} ({row['low']:.3f} to {row['high']:.3f})")
        for row in metadata.metrics.get("robustness", [])
    ]
    if not rows:
        return []
    note = "What the mean Dice loses where the same images come in another form. Negative: nothing is lost."
    return [note, _table(("change", "cases", "drop in Dice (95 % interval)"), rows)]


def _measurements(metadata: ModelMetadata) -> list[str]:
    """What was measured of what the model measures itself, by whoever published it."""
    rows = [
        (name, found["cases"], f"{found['mean']:g} ({found['low']:g} to {found['high']:g})")
        for name, found in metadata.metrics.get("measurements", {}).items()
    ]
    if not rows:
        return []
    return [_table(("", "cases", "mean (95 % interval)"), rows)]


def _terms(metadata: ModelMetadata) -> list[str]:
    weights = metadata.weights
    size = f"{weights['bytes'] / 1e6:.1f} MB, {weights['dtype']}"
    return [
        f"`{weights['file']}`, {size}, SHA-256 `{weights['sha256']}`",
        f"Licence: {_licence(metadata)}",
        f"Please cite: {metadata.citation}",
        f"This card was made by `usema card` from `model.json` and `{CASES_FILE}`, which holds the figures of every "
        "case.",
    ]


def _licence(metadata: ModelMetadata) -> str:
    licence = metadata.licence
    use = "commercial use allowed" if licence["commercial_use"] else "no commercial use"
    name = f"[{licence['name']}]({licence['url']})" if licence["url"] else licence["name"]
    return f"{name}, {use}. {licence['attribution']}"


def _by_label(results: Results) -> Iterable[tuple[str, list[tuple[CaseResult, LabelResult]]]]:
    """(label, its cases) for the labels that any case has."""
    names = dict.fromkeys(label.label for case in results.cases for label in case.labels)
    return [(name, pairs) for name in names if (pairs := results.of_label(name))]


def _interval(metric: str, interval: tuple[float, float] | None) -> str:
    return f"{_metric(metric, interval[0])} to {_metric(metric, interval[1])}" if interval else "too few cases"


def _metric(metric: str, value: float) -> str:
    if not math.isfinite(value):  # a case without the label in result or reference; or a mean of none but such cases
        return "missed"
    return f"{value:.2f}" if metric == "hausdorff95_mm" else f"{value:.3f}"


def _table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(value: Any) -> str:
    """Text that stays in its cell."""
    return " ".join(str(value).replace("|", "\\|").split())
