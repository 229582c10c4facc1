"""Prints the attention backends' times, and their table: `python -m
multimodal_gen.benchmarks.attention`."""

from __future__ import annotations

import argparse

import torch

from multimodal_gen.benchmarks.attention.trial import Timed, sites, timed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tokens", type=int, default=4352, help="of the longer of two rows")
    parser.add_argument("--heads", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=20)
    args = parser.parse_args()
    device = torch.device(args.device)
    found = []
    for site in sites(device):
        each = timed(site, device, (args.tokens, args.heads), args.repeats)
        print(_line(each), flush=True)
        found.append(each)
    if found[0].site.major is not None:
        print("\n" + "\n".join(rows(found)))


def rows(found: list[Timed]) -> list[str]:
    """Rows of `table.py`: neighbouring widths with the same order of backends are one."""
    lines = []
    kinds = dict.fromkeys((each.site.dtype, each.site.lengths) for each in found)
    for dtype, lengths in kinds:
        of_kind = [
            each for each in found if (each.site.dtype, each.site.lengths) == (dtype, lengths)
        ]
        first = of_kind[0]
        for each, following in zip(of_kind, [*of_kind[1:], None], strict=True):
            if following is not None and following.fastest == first.fastest:
                continue
            widths = (first.site.width, each.site.width)
            lines += [
                f'TableRow(({each.site.major},), ({dtype},), {widths}, {lengths}, "{name}"),'
                for name in first.fastest
            ]
            first = following or first
    return lines


def _line(each: Timed) -> str:
    site = each.site
    times = ", ".join(f"{name} {1000 * seconds:.3f}" for name, seconds in each.seconds.items())
    dtype = str(site.dtype).removeprefix("torch.")
    text = "unlike lengths" if site.lengths else "one length"
    return f"{dtype:9} width {site.width:3}  {text:14}  ms: {times}"


if __name__ == "__main__":
    main()
