"""The data sets of USEMA's paper and its neighbours: from the public download to one command that trains.

Facts about downloads and published numbers are taken from the sources that each file names. Nobody has run these
recipes on the whole data yet.
"""

from __future__ import annotations

from usema.errors import InputError

from . import amos_mr, endovis17, flare22, neurips_cells
from .recipe import Recipe

RECIPES = {module.RECIPE.name: module.RECIPE for module in (flare22, amos_mr, endovis17, neurips_cells)}


def find_recipe(name: str) -> Recipe:
    """The recipe of this name.

    Raises:
        InputError: there is none.
    """
    if name not in RECIPES:
        raise InputError(f"There is no recipe '{name}'.", f"Choose one of: {', '.join(RECIPES)}.")
    return RECIPES[name]
