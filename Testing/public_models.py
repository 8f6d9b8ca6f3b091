"""Compares the shelf of public models with what its publishers state, fact by fact.

    python Testing/public_models.py [--shared FOLDER] [--auto3dseg Models.json] [--write]

Titles, regions, notes and measured seconds of ``usema/converters/public_models.json`` are kept by hand; addresses,
sizes, hashes, labels, licences, recipes and codes are facts:

    TotalSegmentator  totalsegmentator-tasks.json, totalsegmentator-snomed.json, read from its program
    brainchop         the publisher's files themselves
    Auto3DSeg         Models.json of github.com/lassoan/SlicerMONAIAuto3DSeg, if a copy of it is named

--write takes the facts over; entries that are not there yet it only names.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CONVERTERS = ROOT / "USEMASegmentation" / "usema" / "converters"
INDEX = CONVERTERS / "public_models.json"
SHARED = ROOT.parent / "shared"

_APACHE = "https://www.apache.org/licenses/LICENSE-2.0"
_AUTO3DSEG = "https://github.com/lassoan/SlicerMONAIAuto3DSeg"
_OPEN_LICENCES = {  # as Models.json writes them: name, address
    "CC BY 4.0": ("CC BY 4.0", "https://creativecommons.org/licenses/by/4.0/"),
    "CC-BY-SA4.0": ("CC BY-SA 4.0", "https://creativecommons.org/licenses/by-sa/4.0/"),
}
_RESOLUTIONS = {"total": ("1-5mm", "3mm", "6mm"), "body": ("1-5mm", "6mm", "6mm")}  # default, fast, fastest
_MODES = ("default", "fast", "fastest")
_POSTPROCESS = {
    "body": ["body"],
    "vertebrae_pp": ["vertebrae"],
    "vertebrae_pp_refined": ["vertebrae", "vertebrae_refined"],
}
_CODES = ("category", "type", "type_modifier", "region", "region_modifier")

Facts = dict[str, dict[str, Any]]


def totalsegmentator(tasks: dict[str, Any]) -> Facts:
    """The facts of ``totalsegmentator-tasks.json``, by name of the model."""
    facts = {}
    for task, says in tasks["tasks"].items():
        stated = says["licence"].startswith("Apache-2.0")
        labels = [says["labels"][str(value)] for value in range(1, len(says["labels"]) + 1)]
        for mode, how in says["modes"].items():
            used = [*how["datasets"], *how.get("also_needs", [])]
            recipe = _recipe(task, labels, how)
            facts[_name(task, mode)] = {
                "licence.open": "yes" if stated else "not stated",
                "licence.url": _APACHE,
                "modality": says["modality"],
                "labels": labels,
                "files": [{"url": one["url"], "bytes": one["zip_bytes"], "sha256": one["sha256"]} for one in used],
                "needs": [recipe["crop_first"]["model"]] if "crop_first" in recipe else [],
                **{f"recipe.{key}": value for key, value in recipe.items()},
            }
    return facts


def _name(task: str, mode: str) -> str:
    resolutions = _RESOLUTIONS.get(re.sub("_(mr|v3)$", "", task))
    name = f"totalsegmentator-{task.lower().replace('_', '-')}"
    return f"{name}-{resolutions[_MODES.index(mode)]}" if resolutions else name


def _recipe(task: str, labels: list[str], how: dict[str, Any]) -> dict[str, Any]:
    datasets = [_dataset(one) for one in how["datasets"]]
    for dataset, one in zip(datasets, how["datasets"], strict=True):
        if "parts" in how:
            numbers = how["parts"][str(one["id"])]
            dataset["labels"] = [numbers.get(str(value), 0) for value in range(1, max(map(int, numbers)) + 1)]
        if "drop_labels" in how:
            dataset["labels"] = [*range(1, len(labels) + 1), *[0] * len(how["drop_labels"])]
    recipe = {
        "format": "totalsegmentator",
        "datasets": datasets + [{**_dataset(one), "role": "bodies"} for one in how.get("also_needs", [])],
        "resample_mm": how["resample_mm_xyz"],
        "folds": ["0"] if how["folds"] == [0] else "all",
        "overlap": round(1 - how["tile_step"], 3),
        "postprocess": _POSTPROCESS.get(task),
    }
    if crop := how.get("crop_first"):
        finder = _name(crop["task"], crop["mode"])
        recipe["crop_first"] = {"model": finder, "labels": crop["labels"], "margin_mm": crop["margin_mm"]}
    return recipe


def _dataset(one: dict[str, Any]) -> dict[str, Any]:
    training = one["model_folder"]
    return {
        "folder": one["dataset_folder"],
        "configuration": training.rpartition("__")[2],
        "training": training,
    }


def auto3dseg(models: dict[str, Any]) -> Facts:
    """The facts of the publisher's ``Models.json``, by address of the newest version."""
    facts = {}
    for says in models["models"]:
        name, url = _OPEN_LICENCES.get(says.get("license"), (says.get("license", "none stated"), _AUTO3DSEG))
        facts[says["versions"][0]["url"]] = {
            "licence.name": name,
            "licence.url": url,
            "licence.open": "not stated" if url == _AUTO3DSEG else "yes",
            "modality": says["imagingModality"],
            # "Edema in Edema" is said of what has no place of its own
            "labels": [re.sub(r"^(.+) in \1$", r"\1", label) for label in says["segmentNames"]],
            "publisher_seconds": round(says["segmentationTimeSecCPU"]),
        }
    return facts


def brainchop(weights: Path, table: dict[str, Any]) -> Facts:
    """The facts of the publisher's files in a folder and of ``brainchop_models.json``, by name of the model."""
    facts = {}
    for path in sorted([*weights.glob("*/*.pth"), *weights.glob("*/*.bin")]):
        data = path.read_bytes()
        sha256 = hashlib.sha256(data).hexdigest()
        says = table["models"].get(sha256)
        if says is not None:
            address = f"https://raw.githubusercontent.com/neuroneural/brainchop-models/{table['source']['commit']}"
            file = {"url": f"{address}/meshnet/{path.parent.name}/{path.name}", "bytes": len(data), "sha256": sha256}
            labels = [label["name"] for label in says["labels"]]
            facts[says["name"]] = {"labels": labels, "files": file, "recipe.format": "brainchop"}
    return facts


def differences(document: dict[str, Any], publisher: str, facts: Facts, by_address: bool = False) -> Iterator[tuple]:
    """What an index says otherwise: (entry or None, key, what is stated); the entries and facts of one publisher.

    Args:
        document: public_models.json.
        publisher: key of its ``publishers``.
        facts: by name, or by address of the first file.
    """
    ours = [entry for entry in document["models"] if entry["publisher"] == publisher]
    known = {entry["files"][0]["url"] if by_address else entry["name"]: entry for entry in ours}
    for name in known.keys() - facts.keys():
        yield known[name], "name", None
    for name, stated in facts.items():
        entry = known.get(name)
        if entry is None:
            yield None, name, stated
            continue
        for key, value in stated.items():
            if key == "files" and isinstance(value, dict):  # one of them
                if value not in entry["files"]:
                    yield entry, key, [value]
            elif _get(entry, key) != value:
                yield entry, key, value


def code_differences(codes: dict[str, Any], snomed: dict[str, Any]) -> Iterator[str]:
    """Where ``label_codes.json`` says something else than ``totalsegmentator-snomed.json``."""
    ours = {}
    for name, (places, color) in codes["labels"].items():
        listed = [None if place is None else codes["codes"][place] for place in places]
        ours[name] = {
            **{key: code and dict(zip(("scheme", "value", "meaning"), code, strict=True))
               for key, code in zip(_CODES, listed, strict=True)},
            "rgb": color,
        }  # fmt: skip
    for name in sorted(ours.keys() | snomed["labels"].keys()):
        stated = {key: snomed["labels"].get(name, {}).get(key) for key in (*_CODES, "rgb")}
        if ours.get(name) != stated:
            yield f"label_codes.json, {name}: {ours.get(name)}, and its publisher states {stated}"


def _get(entry: dict[str, Any], key: str) -> Any:
    for part in key.split("."):
        entry = entry.get(part) if isinstance(entry, dict) else None
    return entry


def _set(entry: dict[str, Any], key: str, value: Any) -> None:
    *parts, last = key.split(".")
    for part in parts:
        entry = entry.setdefault(part, {})
    entry[last] = value
    if value is None:
        del entry[last]


def as_text(document: dict[str, Any]) -> str:
    """The file as it is kept: a line for each model."""
    lines = ",\n".join("    " + json.dumps(entry, ensure_ascii=False) for entry in document["models"])
    head = {key: value for key, value in document.items() if key != "models"}
    start = json.dumps(head, indent=2, ensure_ascii=False).removesuffix("\n}")
    return f'{start},\n  "models": [\n{lines}\n  ]\n}}\n'


def stated_by(shared: Path, models: Path | None = None) -> Iterator[tuple[str, Facts, bool]]:
    """(publisher, its facts, whether they are by address) of all sources that are there."""
    tasks = json.loads((shared / "spec/totalsegmentator-tasks.json").read_text("utf-8"))
    yield "totalsegmentator", totalsegmentator(tasks), False
    table = json.loads((CONVERTERS / "brainchop_models.json").read_text("utf-8"))
    yield "brainchop", brainchop(shared / "data/public_models/brainchop/weights", table), False
    if models is not None:
        yield "auto3dseg", auto3dseg(json.loads(models.read_text("utf-8"))), True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=SHARED, help="the folder with spec/ and data/")
    parser.add_argument("--auto3dseg", type=Path, metavar="MODELS_JSON", help="a copy of the publisher's Models.json")
    parser.add_argument("--write", action="store_true", help="take the facts over")
    arguments = parser.parse_args()
    document, count = json.loads(INDEX.read_text("utf-8")), 0
    for publisher, facts, by_address in stated_by(arguments.shared, arguments.auto3dseg):
        for entry, key, value in list(differences(document, publisher, facts, by_address)):
            count += 1
            if entry is None:
                print(f"{publisher}: {key} is not on the shelf")
            elif key == "name":
                print(f"{entry['name']}: {publisher} states no such model")
            else:
                print(f"{entry['name']}: {key} is {_get(entry, key)!r}, and its publisher states {value!r}")
                if arguments.write:
                    _set(entry, key, value)
    codes = json.loads((CONVERTERS / "label_codes.json").read_text("utf-8"))
    snomed = json.loads((arguments.shared / "spec/totalsegmentator-snomed.json").read_text("utf-8"))
    for line in code_differences(codes, snomed):
        count += 1
        print(line)
    if arguments.write:
        INDEX.write_text(as_text(document), encoding="utf-8")
    print(f"{len(document['models'])} entries, {count} differences")
    return count > 0 and not arguments.write


if __name__ == "__main__":
    sys.exit(main())
