"""`usema adapt`: a few corrected slices of a result, and the rest is done again with what they tell."""

from __future__ import annotations

import re
from pathlib import Path

import click
from rich.console import Console

from ..errors import InputError
from .case_run import write_labels_as_named
from .cases import refuse_replacing
from .device_names import check_device_name
from .interrupt import stop_on_interrupt
from .progress import RunProgress, duration
from .segment import DEFAULT_MODEL
from .tables import say

_AXES = {"z": 0, "y": 1, "x": 2}
_DELTA_SUFFIX = ".safetensors"
_WAYS = ("auto", "propagated", "learned", "carried")
_DOING = {
    "looking": "looking at the slices",
    "checking": "checking",
    "learning": "learning",
    "propagating": "propagating",
    "segmenting": "segmenting",
}


@click.command()
@click.argument("image", type=click.Path(path_type=Path))
@click.argument("corrected", type=click.Path(path_type=Path))
@click.option("--slices", required=True, metavar="NUMBERS", help="Those that are right: 40,52 or x:12,z:40.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="File (.seg.nrrd, .nii.gz, ...).")
@click.option(
    "--model", default=DEFAULT_MODEL, show_default=True, help="Name of the model that made the result, or path."
)
@click.option(
    "--before", type=click.Path(path_type=Path), help="The model's own result: what you changed since, stays."
)
@click.option("--channel", "channels", multiple=True, type=click.Path(path_type=Path), help="Further input channel.")
@click.option("--way", type=click.Choice(_WAYS), default="auto", show_default=True)
@click.option("--deep", is_flag=True, help="Also the last stage and the norms learn: slower, seldom better.")
@click.option("--save-delta", type=click.Path(path_type=Path), help="Keep what was learned here (.safetensors).")
@click.option("--minutes", type=float, default=10.0, show_default=True, help="Learn only if it takes no longer.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ... or mps.")
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
def adapt(
    image, corrected, slices, output, model, before, channels, way, deep, save_delta, minutes, seed, device, overwrite
) -> None:
    """Segment IMAGE again, with what CORRECTED, its result after you corrected some slices, tells.

    The slices that --slices names come back exactly as they are in CORRECTED, as does what you changed since --before.
    They are numbered from 0 along the file's last axis (z), or along the axis that is named.

    What you changed on them is propagated to the other slices by a small network; far away all stays as the model has
    it. With two slices or more along an axis, up to four are left out in turn to see whether that helps: if not, it is
    not done, and the command says so. With --way learned, the model's last layer learns from them instead. The model's
    own files do not change: what was learned can be kept by --save-delta and given to `usema segment --delta`.
    """
    from ..files import refuse_existing
    from ..models.adaptable import why_not
    from ..models.bundle import WEIGHTS_FILE, read_bundle
    from ..quality.labelled_cases import LabelledCase, read_case, read_labels
    from ..store.library import find_model
    from ..volumes import writing

    wanted = slices_of(slices)
    if not minutes >= 0:  # nor is NaN
        raise InputError(f"{minutes:g} minutes are no time to learn in.", "Give --minutes 0 or more.")
    check_device_name(device)
    bundle = read_bundle(find_model(model))
    if reason := why_not(bundle.metadata):
        raise InputError(reason, "Correct by hand, or segment with another model.")
    kinds = (writing.SEGMENTATION_SUFFIX, *writing.IMAGE_SUFFIXES)
    if writing.result_suffix(output) not in kinds:
        raise InputError(
            f"{output} is no label map or segmentation.", f"Name it {', '.join(kinds[:-1])} or {kinds[-1]}."
        )
    if output.parent.is_dir():  # else it is made when there is something to be written
        writing.check_writable(output, overwrite)
    refuse_replacing(output, {path.resolve() for path in (image, corrected, before, *channels) if path is not None})
    if save_delta is not None:
        if save_delta.suffix.lower() != _DELTA_SUFFIX:  # so it replaces no volume and no segmentation either
            raise InputError(f"{save_delta} is no name of what was learned.", f"Let it end with {_DELTA_SUFFIX}.")
        refuse_replacing(save_delta, {(Path(bundle.path) / WEIGHTS_FILE).resolve()})
        refuse_existing(save_delta, overwrite)
    images = (image, *channels)
    volumes, labels = read_case(LabelledCase(image.name, images, corrected), bundle.metadata)
    edited = None
    if before is not None:
        own = LabelledCase(image.name, images, before)
        edited = read_labels(own, volumes[0].geometry, bundle.metadata) != labels
    console = Console(stderr=True)
    with stop_on_interrupt() as stop, RunProgress(console) as progress:
        adapted = _adapted(bundle, device, volumes, labels, edited, wanted, way, deep, minutes, seed, stop, progress)
        result = adapted.segmentation
        output.parent.mkdir(parents=True, exist_ok=True)
        write_labels_as_named(output, volumes[0], result, result, overwrite)
    report = adapted.report
    say(console, f"{image.name}: {report['message']}")
    for line in result.warnings:
        say(console, f"{image.name}: {line}", "yellow")
    if report["far_share"] > 0:
        far = f"{report['far_share']:.0%} of what is segmented changed farther than {report['far_mm']:g} mm from them"
        say(console, f"{image.name}: {far}. Check it.", "yellow")
    say(console, f"{image.name}: {report['changed_ml']:.2f} ml changed -> {output}")
    if save_delta is not None:
        _keep(save_delta, adapted.delta, console)


def _adapted(bundle, device, volumes, labels, edited, wanted, way, deep, minutes, seed, stop, progress):
    from ..adaptation.adapting import adapt as adapt_case
    from ..adaptation.corrections import Corrections
    from ..adaptation.fitting import HEADS, STAGE
    from ..adaptation.wish import Wish
    from ..inference.predictor import Predictor
    from ..models.bundle import read_bundle
    from ..store.library import find_model

    corrections = Corrections(labels, wanted, edited)
    wish = Wish(way=way, recipe=STAGE if deep else HEADS, seconds_allowed=60 * minutes, seed=seed)
    predictor = Predictor(bundle, device, lambda name: read_bundle(find_model(name)))
    bars = {}

    def tell(phase: str, done: int, total: int, left: float | None) -> None:
        if phase not in bars:
            bars[phase] = progress.case(_DOING[phase])
        bars[phase](done, total, left)

    def estimated(estimate) -> None:
        memory = f", {estimate.memory_bytes / 2**30:.1f} GiB more memory" if estimate.memory_bytes else ""
        progress.say(f"Learning {estimate.trained} numbers: about {duration(estimate.seconds)}{memory}")

    return adapt_case(
        predictor, volumes, corrections, wish, progress=tell, estimated=estimated, should_stop=stop.is_set
    )


def slices_of(text: str) -> tuple[tuple[int, int], ...]:
    """ "40,52" or "x:12,z:40" as pairs of axis (0 is z) and index.

    Raises:
        InputError: it is no such list.
    """
    found = []
    for one in filter(None, (part.strip() for part in text.split(","))):
        match = re.fullmatch(r"(?:([xyz]):)?(\d+)", one)
        if match is None:
            raise InputError(f"'{one}' is no slice.", "Give numbers with commas between, such as 40,52 or x:12.")
        found.append((_AXES[match[1] or "z"], int(match[2])))
    return tuple(found)


def _keep(path: Path, delta, console: Console) -> None:
    from ..files import replace_file

    if delta is None:
        say(console, f"Nothing was learned, so {path} was not written; --way learned asks for it.", "yellow")
        return
    content = delta.to_bytes()
    replace_file(path, content)
    say(console, f"What was learned ({len(content) / 1000:.1f} kB) -> {path}")
