"""Gives a model of crops the network that finds its regions in whole volumes, as hippocampus-mr has one since 0.4.0.

    python Testing/add_finder.py BUNDLE CARD WEIGHTS -o OUTPUT

BUNDLE is the model of crops, WEIGHTS the folder of brainchop's published networks, CARD a JSON with what model.json
says then: its keys as they are, and find_regions without the finder, whose network is brain-subcortical-mini. That was
trained at 1 mm; at 2 mm and with dilations half as long it sees the same neighbourhood in an eighth of the time. The
figures of card/cases.json stay true, but for the hash of the weights: the network of crops is not changed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "USEMASegmentation"))

FINDER = "brain-subcortical-mini"
VOXEL_MM = 2
OWN_CARD_KEYS = ("finder_attribution", "finder_citation")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("card", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()

    from usema import converters
    from usema.models.bundle import METADATA_FILE, read_bundle
    from usema.models.bundle_writing import write_bundle
    from usema.models.region_rules import FINDER_PREFIX

    bundle, card = read_bundle(arguments.bundle), json.loads(arguments.card.read_text("utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        finder = converters.convert(arguments.weights, Path(folder) / "finder", (FINDER,))
        network, finder_weights = finder.metadata, finder.load_weights()
    document = json.loads((bundle.path / METADATA_FILE).read_text("utf-8"))
    for key in ("schema_version", "weights"):
        del document[key]
    config = dict(network.architecture["config"])
    config["dilations"] = [max(1, dilation // VOXEL_MM) for dilation in config["dilations"]]
    document |= {key: value for key, value in card.items() if key not in OWN_CARD_KEYS}
    document["find_regions"]["finder"] = {
        "architecture": {**network.architecture, "config": config},
        "preprocessing": {"kind": "conform", "voxel_mm": VOXEL_MM, "largest_component": True},
        "inference": network.inference,
        "labels": [label.name for label in network.labels],
    }
    licence = document["licence"]
    document["licence"] = {**licence, "attribution": f"{licence['attribution']} {card['finder_attribution']}"}
    document["citation"] = f"{document['citation']} {card['finder_citation']}"
    weights = bundle.load_weights()
    weights |= {FINDER_PREFIX + name: tensor for name, tensor in finder_weights.items()}
    made = write_bundle(arguments.output, document, weights)
    (made.path / "LICENSE.txt").write_text(
        f"The model is under {licence['name']} ({licence['url']}).\n\nIts part that finds regions in whole volumes is "
        "brainchop's, under the following licence.\n\n" + (arguments.weights.parent / "LICENSE").read_text("utf-8"),
        "utf-8",
    )
    print(f"{made.path}: {made.metadata.title} {made.metadata.version}, {made.metadata.weights['bytes'] / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
