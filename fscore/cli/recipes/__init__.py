"""What `fscore new-plugin` writes for each kind: a small component that works, its options for the tests, and a course."""

from __future__ import annotations

from fscore.cli.recipes import clients, machines, server
from fscore.cli.recipes.recipe import Recipe
from fscore.kinds import KINDS, Kind

RECIPES: dict[str, Recipe] = {
    r.kind: r for r in (*server.RECIPES, *clients.RECIPES, *machines.RECIPES)
}
"""By the name that `--kind` takes."""


def kind_of_recipe(recipe: Recipe) -> Kind:
    """Return the kind that a recipe is for."""
    return next(kind for kind in KINDS if kind.plural == recipe.plural)


__all__ = ["RECIPES", "Recipe", "kind_of_recipe"]
