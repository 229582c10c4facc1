"""For each family and task that the registry names, a small request that shows it."""

from tiny_checkpoints.case import Case, Cell
from tiny_checkpoints.families import CASES

from multimodal_gen.configs.families import FAMILIES

__all__ = ["CASES", "CELLS", "Case", "Cell"]

CELLS: set[Cell] = {(family.name, task) for family in FAMILIES for task in family.tasks}
