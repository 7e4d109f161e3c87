"""Whether kernels and references learn alike: their difference against that of two seeds of the references."""

from __future__ import annotations

import sys
from typing import Any

import torch

from adu_depth.files import write_json
from bench.gpu_check.arguments import stage_arguments
from bench.gpu_check.training import KINDS, Run, forget_runs, line, make_plan, runs_folder, train_one, with_scenes
from bench.harness.environment import measured_environment

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
    plan = make_plan(chosen.dry_run)
    result: dict[str, Any] = {
        "environment": measured_environment(torch.device(plan.device)),
        "complete": False,
        "runs": [],
        "verdicts": [],
    }
    folder = runs_folder(chosen.output, chosen.dry_run)
    forget_runs(chosen.output)
    plan = with_scenes(plan, folder)
    seeds = (("kernels", 0), ("references", 0), ("references", 1))
    for kind in KINDS:
        runs = []
        for backend, seed in seeds:
            run = train_one(plan, kind, backend, seed, folder / f"{backend}-{seed}")
            runs.append(run)
            result["runs"].append(run)
            print(line(run), flush=True)
            write_json(chosen.output, result)
        if not any("failure" in run for run in runs):
            result["verdicts"].append(judged(*runs))
            print(result["verdicts"][-1], flush=True)
    result["complete"] = True
    write_json(chosen.output, result)
    forget_runs(chosen.output)
    sound = len(result["verdicts"]) == len(KINDS) and all(verdict["within"] for verdict in result["verdicts"])
    sys.exit(0 if sound or (chosen.dry_run and len(result["verdicts"]) == len(KINDS)) else 1)


if __name__ == "__main__":
    main()
