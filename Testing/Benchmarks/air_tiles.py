"""How many tiles hold one value alone, so that their logits would be known without the network.

    python Testing/Benchmarks/air_tiles.py VOLUME... [--spacing 1] [--floor -900]

Tiles overlap by a half, on what is left once the empty border is cropped, as preprocessing does. ``--floor`` is the
least value that a CT model's normalisation leaves. Prints a line for each size of tile.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "USEMASegmentation"))
SIZES = ((40, 56, 40), (64, 64, 64), (128, 128, 128))


def main() -> None:
    from usema.inference.nnunet_recipe import nonzero_bounds
    from usema.inference.resampling import resample_image_linear, resampled_shape
    from usema.inference.tiling import Tiling
    from usema.volumes.volume import read_volume

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("volumes", type=Path, nargs="+")
    parser.add_argument("--spacing", type=float, default=1.0, help="mm")
    parser.add_argument("--floor", type=float)
    arguments = parser.parse_args()
    for path in arguments.volumes:
        volume = read_volume(path)
        data = volume.array[tuple(nonzero_bounds(volume.array[None]))][None].astype(np.float32)
        shape = resampled_shape(data.shape[1:], volume.geometry.spacing_zyx, (arguments.spacing,) * 3)
        data = resample_image_linear(data, shape, None)
        data = data if arguments.floor is None else np.maximum(data, arguments.floor)
        for size in SIZES:
            tiling = Tiling.of(data.shape[1:], size, 0.5)
            padded = tiling.pad(data)
            tiles = (padded[(slice(None), *tiling.slices(tile))] for tile in tiling.tiles)
            empty = sum(bool(tile.min() == tile.max()) for tile in tiles)
            side, grid = ("x".join(map(str, sides)) for sides in (size, shape))
            print(f"| {path.name} at {grid} | {side} | {tiling.count} | {empty} |", flush=True)


if __name__ == "__main__":
    main()
