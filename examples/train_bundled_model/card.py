"""The model card and the notice, beside the weights."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path
from string import Template

import cutting
import packages
import retrieval
from concepts import Concept
from report import Report
from safetensors import safe_open
from sampling import DEFAULT

HERE = Path(__file__).parent


def write_card(
    model: Path, report: Report, concepts: Mapping[str, Concept], training: Mapping[str, object]
) -> None:
    """Write `README.md` and `NOTICE.txt` into the model's folder.

    `training` says what the training was like and took, by what a row is called.
    """
    sizes = _parameters(model)
    drawings = sum(1 + len(c.colors) + len(c.held_out) for c in concepts.values())
    card = _filled(
        "card.md",
        parameters=f"{sum(sizes.values()):,}",
        megabytes=f"{report.bytes / 1e6:.1f}",
        components="\n".join(f"| {name} | {size:,} |" for name, size in sizes.items()),
        steps=DEFAULT.steps,
        width=DEFAULT.width,
        height=DEFAULT.height,
        length=DEFAULT.length,
        guidance=f"{DEFAULT.true_cfg:g}",
        concepts=len(concepts),
        synonyms=sum(len(concept.also) for concept in concepts.values()),
        objects=sum(bool(concept.colors) for concept in concepts.values()),
        paired=sum(concept.paired for concept in concepts.values()),
        held_out=sum(len(concept.held_out) for concept in concepts.values()),
        side=cutting.SIDE,
        drawings=f"{drawings:,}",
        same=retrieval.SAME,
        tables="\n".join(table.markdown() for table in report.tables),
        training="\n".join(f"| {what} | {value} |" for what, value in training.items()),
        data="\n".join(
            f"| `{p.name}` | {p.version} | {p.use} | {p.license} |" for p in packages.PACKAGES
        ),
    )
    (model / "README.md").write_text(card, encoding="utf-8")
    others = [f"- {p.name} {p.version}" for p in packages.PACKAGES if p != packages.ARTWORK]
    notice = _filled("NOTICE.txt", packages="\n".join(others))
    (model / "NOTICE.txt").write_text(notice, encoding="utf-8")


def _parameters(model: Path) -> dict[str, int]:
    """Of each component that has weights."""
    found = {}
    for file in sorted(model.glob("*/*.safetensors")):
        with safe_open(file, framework="numpy") as weights:
            shapes = [weights.get_slice(key).get_shape() for key in weights.keys()]  # noqa: SIM118
        found[file.parent.name] = sum(prod(shape) for shape in shapes)
    return found


def _filled(template: str, **values: object) -> str:
    return Template((HERE / template).read_text(encoding="utf-8")).substitute(values)
