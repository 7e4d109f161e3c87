"""Whether kernels and references learn alike: their difference against that of two seeds of the references."""

from __future__ import annotations

import sys
from typing import Any

import torch

from adu_depth.files import write_json
from adu_depth.training.checkpoint import read_json
from bench.gpu_check.arguments import stage_arguments
from bench.gpu_check.training import Run, make_plan, scratch, train_both
from bench.harness.environment import measured_environment, source_digest

LAST = 0.2  # share of the logged rows that the final loss is the mean of
FLOOR = 0.02  # relative: two seeds may happen to agree
EARLY = 3  # rows at the start, where the two must still agree closely


def final_loss(run: Run) -> float:
    rows = run["history"][-max(1, round(LAST * len(run["history"]))) :]
    return float(sum(row["total"] for row in rows) / len(rows))


def judged(kernels: Run, references: Run, other_seed: Run) -> dict[str, Any]:
    """The two final losses' relative difference, that of the seeds, and whether the first is within the second."""
    base = abs(final_loss(references))
    difference = abs(final_loss(kernels) - final_loss(references)) / base
    spread = abs(final_loss(other_seed) - final_loss(references)) / base
    pairs = list(zip(kernels["history"], references["history"], strict=False))[:EARLY]
    return {
        "kind": kernels["kind"],
        "final_kernels": final_loss(kernels),
        "final_references": final_loss(references),
        "final_other_seed": final_loss(other_seed),
        "relative_difference": difference,
        "spread_of_seeds": spread,
        "early_relative_differences": [abs(k["total"] - r["total"]) / abs(r["total"]) for k, r in pairs],
        "within": difference <= max(spread, FLOOR),
    }


def main() -> None:
    chosen = stage_arguments(__doc__)
    before = chosen.output.with_name("training.json")
    trained = read_json(before) if before.exists() else {}
    if not trained.get("complete") or trained["environment"].get("sources") != source_digest():
        sys.exit(f"{before}: expected the finished training stage of this very code; run it first")
    plan = make_plan(chosen.rehearse)
    seconds = train_both(plan, "references", 1, scratch() / "references-1")
    verdicts = []
    for kind in ("teacher", "student"):
        kernels, references = (
            next(run for run in trained["runs"] if (run["kind"], run["backend"]) == (kind, backend))
            for backend in ("kernels", "references")
        )
        verdicts.append(judged(kernels, references, next(run for run in seconds if run["kind"] == kind)))
        print(verdicts[-1], flush=True)
    result = {
        "environment": measured_environment(torch.device(plan.device)),
        "complete": True,
        "runs": seconds,
        "verdicts": verdicts,
    }
    write_json(chosen.output, result)
    sys.exit(0 if chosen.rehearse or all(verdict["within"] for verdict in verdicts) else 1)


if __name__ == "__main__":
    main()
