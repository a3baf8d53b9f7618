"""Check: a recipe or data looked at before anything runs."""

from lexloom.runs.check.findings import Findings, show
from lexloom.runs.check.preflight import check, is_recipe, splits_of

__all__ = ["Findings", "check", "is_recipe", "show", "splits_of"]
