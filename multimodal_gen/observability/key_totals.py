"""Totals of use by API key, since this server started."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

PREFIX = "multimodal_gen_key_"
MOST_KEYS, OTHERS = 1000, "others"
"""Keys that are told apart: files of keys change while the server runs."""


@dataclass
class KeyTotal:
    """Totals of one key, by its name."""

    requests: Counter[str] = field(default_factory=Counter)
    """Images and videos that were asked for, by their status at the end."""
    images: int = 0
    """Images and frames."""
    megapixel_steps: float = 0.0
    prompt_tokens: int = 0


class KeyTotals(Collector):
    """Counts, and is scraped by Prometheus."""

    def __init__(self) -> None:
        self._by_key: dict[str, KeyTotal] = {}

    def of(self, name: str) -> KeyTotal:
        """The totals of the key of this name, to be added to."""
        known = name in self._by_key or len(self._by_key) < MOST_KEYS
        return self._by_key.setdefault(name if known else OTHERS, KeyTotal())

    @property
    def by_key(self) -> Mapping[str, KeyTotal]:
        """The totals of each key that was used."""
        return self._by_key

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        requests = _total("requests", "Requests by key and status.", "status")
        images = _total("images", "Images and video frames generated, by key.")
        steps = _total("megapixel_steps", "Megapixels times computed evaluations, by key.")
        tokens = _total("prompt_tokens", "Tokens of the prompts of completed requests, by key.")
        for name, total in self._by_key.items():
            for status, count in total.requests.items():
                requests.add_metric([name, status], count)
            images.add_metric([name], total.images)
            steps.add_metric([name], total.megapixel_steps)
            tokens.add_metric([name], total.prompt_tokens)
        yield from (requests, images, steps, tokens)


def _total(name: str, text: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(PREFIX + name, text, labels=["key", *labels])
