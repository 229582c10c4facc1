"""Tells clients how long evaluations take."""

from __future__ import annotations

import time
from collections.abc import Callable

from multimodal_gen.messages.evaluation_costs import EvaluationCosts
from multimodal_gen.scheduling.cost_model import CostModel
from multimodal_gen.scheduling.policy import Policy

PAUSE_S = 1.0
"""Minimum time between two predictions while requests run."""


class CostBulletin:
    """Publishes predictions when they have changed."""

    def __init__(self, publish: Callable[[EvaluationCosts], None]) -> None:
        self._publish = publish
        self._version = -1
        self._told_at = 0.0

    def renew(self, policy: Policy, cost: CostModel, *, at_once: bool = False) -> None:
        """Publish what changed, but not just after the last time unless `at_once`."""
        now = time.monotonic()
        if cost.version != self._version and (at_once or now >= self._told_at + PAUSE_S):
            self._version, self._told_at = cost.version, now
            self._publish(policy.evaluation_costs())
