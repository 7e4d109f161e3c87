"""`python -m bench <name> [options]`: the benchmarks by name. Each is a dataclass of options with a `main` method."""

from __future__ import annotations

from typing import Any

import tyro

from bench.cost_volume import CostVolumeBenchmark
from bench.render import RenderBenchmark

BENCHMARKS: dict[str, Any] = {
    "cost-volume": CostVolumeBenchmark,
    "render": RenderBenchmark,
}


def main() -> None:
    tyro.extras.subcommand_cli_from_dict(BENCHMARKS, prog="python -m bench").main()


if __name__ == "__main__":
    main()
