"""Writes the README's generated tables between their marks; `python docs/_hooks/write_readme.py`.

GitHub shows the README as it is, so its tables stand in the file.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from generated import TABLES

README = Path(__file__).parents[2] / "README.md"
_BLOCK = re.compile(r"(<!-- generated: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def with_tables(markdown: str) -> str:
    """Return a page with its tables renewed."""
    return _BLOCK.sub(lambda block: f"{block[1]}\n{TABLES[block[2]]()}\n\n{block[3]}", markdown)


def main() -> None:
    """Renew the tables in the file."""
    README.write_text(with_tables(README.read_text()))


if __name__ == "__main__":
    main()
