"""Replaces `<!-- generated: NAME -->` in a page with a table made from the code's declarations."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from command_line import command_reference, sampling_parameters, server_arguments
from http_api import body_fields, error_codes, routes
from library_table import library_pipelines, refused_pipelines
from model_tables import families, modular, noise_schedules, overview, published, solvers

_MARKER = re.compile(r"^<!-- generated: ([\w-]+) -->$", re.MULTILINE)
TABLES = {
    "cli": command_reference,
    "sampling-parameters": sampling_parameters,
    "server-arguments": server_arguments,
    "http-routes": routes,
    "http-bodies": body_fields,
    "errors": error_codes,
    "families": families,
    "published": published,
    "overview": overview,
    "modular": modular,
    "solvers": solvers,
    "noise-schedules": noise_schedules,
    "library-pipelines": library_pipelines,
    "refused-pipelines": refused_pipelines,
}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in one page; mkdocs calls it. Raises KeyError for a name that no table has."""
    return _MARKER.sub(lambda match: TABLES[match[1]](), markdown)
