"""The papers' tables, run again: recipes as data, one file of finished trainings each, tables and pictures."""

from attribguard.reproduce.catalogue import RECIPES
from attribguard.reproduce.page import results_page, results_pictures
from attribguard.reproduce.recipe import Outcome, Recipe, Row, Run, Size
from attribguard.reproduce.run import Watch, reproduce

__all__ = [
    "RECIPES",
    "Outcome",
    "Recipe",
    "Row",
    "Run",
    "Size",
    "Watch",
    "reproduce",
    "results_page",
    "results_pictures",
]
