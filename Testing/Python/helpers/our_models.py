"""What USEMA's own index offers, in the order in which models are listed."""

from __future__ import annotations

import json

from usema.resources import resources_folder

BUNDLED = "hippocampus-mr"
INDEX = json.loads((resources_folder() / "models.json").read_text(encoding="utf-8"))
OFFERED = {model["name"]: model for model in sorted(INDEX["models"], key=lambda model: model["name"])}
WAITING = [name for name in OFFERED if name != BUNDLED]  # to be downloaded
STATES = [(name, "bundled" if name == BUNDLED else "available") for name in OFFERED]
# As the panel shows them.
CHOICES = [
    f"{model['title']} – " + ("bundled" if name == BUNDLED else f"{model['file']['size'] / 1e6:.1f} MB, not downloaded")
    for name, model in OFFERED.items()
]
