"""summary.md of a packed file: what a person reads first. Only the standard library.

No time is shown of an operation whose tests are red on this machine, nor of a step, a profile, a training or a launch
shape while any is; none of other code or another machine.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from bench.gpu_check.entries import EAGER, OURS, Red, Value, are_of_the_same, of_one_making, red_tests
from bench.gpu_check.packed import Entry
from bench.gpu_check.stages import BY_NAME
from bench.operations import OPERATIONS

FAILURES_SHOWN = 40


def summary_text(value: Value, rows: Sequence[Value], dry_run: bool, others: Collection[str] = ()) -> str:
    """rows: of this call's stages, in order; those of earlier calls come after them. others: the stages whose entry is
    of other code or another machine."""
    stages: dict[str, Entry] = value["stages"]
    told = {row["name"] for row in rows}
    rows = [*rows, *(stages[name] for name in BY_NAME if name in stages and name not in told and name not in others)]
    made = {name: of_one_making(entry) for name, entry in stages.items() if name not in others}
    results = {name: found[0] for name, found in made.items() if found}
    lines = ["# GPU check" + (" (DRY RUN on a CPU: no number here is a measurement)" if dry_run else ""), ""]
    lines += [machine(results), "", "| stage | state | seconds | finding |", "|-|-|-|-|"]
    for row in rows:
        found = finding(row["name"], results.get(row["name"])) or code_of(row)
        lines.append(f"| {row['name']} | {row.get('state', '–')} | {row.get('seconds', 0):.0f} | {found} |")
    red = red_tests(None if "parity" in others else stages.get("parity"))
    for part in (operations, steps, waits, trainings, tuned, failures):
        lines += part(results, red)
    return "\n".join([*lines, *elsewhere(stages, others)]) + "\n"


def elsewhere(stages: dict[str, Entry], others: Collection[str]) -> list[str]:
    """What is kept of other code or another machine: where it is from and how much, without times."""
    found: list[tuple[str, Value]] = []
    for name, entry in stages.items():
        here, earlier = name not in others, entry.get("earlier") or {}
        if entry.get("result") and not here:
            found.append((name, entry["result"]))
        if earlier.get("result") and not (here and are_of_the_same(entry.get("key"), earlier.get("key"))):
            found.append((name, earlier["result"]))
    lines = [f"- {name}: {machine({name: result})}: {finding(name, result)}" for name, result in found]
    return ["", "## From other code or another machine", "", *lines] if lines else []


def machine(results: Value) -> str:
    environment: Value = next((r["environment"] for r in results.values() if r.get("environment")), {})
    settings = (results.get("peaks") or {}).get("settings") or {}
    names = ("device", "torch", "triton", "python", "cuda", "driver", "commit", "sources")
    told = [f"{name} {environment[name]}" for name in names if environment.get(name)]
    return ", ".join([*told, *([f"cuDNN {settings['cudnn']}"] if settings.get("cudnn") else [])])


def code_of(row: Value) -> str:
    log = [line for line in row.get("log", []) if line.strip()]
    return f"exit code {row['code']}: {_cell(log[-1])}" if row.get("state") == "failed" and log else ""


def finding(name: str, result: Value | None) -> str:
    """One line on what a stage's document says."""
    if not result:
        return ""
    if "findings" in result:
        missing = [f"{f['name']} ({f['detail']})" for f in result["findings"] if not f["ok"]]
        return _cell(f"missing: {', '.join(missing)}" if missing else "all there")
    if "counts" in result:
        counts = result["counts"]
        reached = counts.get("passed", 0) + counts.get("failed", 0) + counts.get("skipped", 0)
        told = ", ".join(f"{counts.get(key, 0)} {key}" for key in ("passed", "failed", "skipped"))
        collected = counts.get("collected", 0)
        return told + (f"; {collected - reached} of {collected} not reached" if reached < collected else "")
    if "results" in result:
        statuses = [row["status"] for r in result["results"].values() for case in r["cases"] for row in case["rows"]]
        counted = ", ".join(f"{statuses.count(status)} {status}" for status in dict.fromkeys(statuses))
        cases = sum(len(r["cases"]) for r in result["results"].values())
        return f"{cases} cases; rows: {counted}" + ("" if result["complete"] else "; more to come")
    if result.get("peaks"):
        rates = result["peaks"]
        copies = f"copy {rates['copy'] / 1e12:.2f} TB/s"
        return ", ".join([copies, *(f"{k} {v / 1e12:.0f} TFLOP/s" for k, v in rates.items() if k != "copy")])
    if "questions" in result:
        rows = [row["status"] for question in result["questions"] for row in question["candidates"]]
        counted = ", ".join(f"{rows.count(status)} {status}" for status in dict.fromkeys(rows))
        return f"{len(result['questions'])} questions; candidates: {counted}"
    if name == "warm":
        bad = [name for name, told in result["compiled"].items() if told["code"]]
        return f"{len(result['compiled'])} compiled" + (f"; failed: {', '.join(bad)}" if bad else "")
    if "verdicts" in result:
        return "; ".join(
            f"{v['kind']}: differs by {v['relative_difference']:.2%}, seeds by {v['spread_of_seeds']:.2%}, "
            + ("within" if v["within"] else "NOT within")
            for v in result["verdicts"]
        )
    if "steps" in result and isinstance(result["steps"], dict):
        bad = [name for name, step in result["steps"].items() if "failure" in step]
        return f"{len(result['steps'])} steps" + (f"; failed: {', '.join(bad)}" if bad else "")
    if "runs" in result:
        bad = [f"{run['kind']} {run['backend']}" for run in result["runs"] if "failure" in run]
        return f"{len(result['runs'])} trainings" + (f"; failed: {', '.join(bad)}" if bad else "")
    return str(result.get("finding", "")) or ("" if result.get("complete", True) else "incomplete")


def cases_of(results: Value, names: Sequence[str]) -> Iterator[tuple[str, str, list[Value]]]:
    """Benchmark, case and rows of the newest measurement: one beside the compiled reference says more."""
    found: dict[tuple[str, str], list[Value]] = {}
    for stage in ("operations", "compiled", "max-autotune", "training-steps", "compiled-steps", "inference"):
        for name, result in ((results.get(stage) or {}).get("results") or {}).items():
            for case in result["cases"]:
                if name in names:
                    rows = found.setdefault((name, case["name"]), [])
                    fresh = {row["name"] for row in case["rows"]}
                    rows[:] = [*case["rows"], *(row for row in rows if row["name"] not in fresh)]
    for (name, case_name), rows in found.items():
        yield name, case_name, rows


def operations(results: Value, red: Red) -> list[str]:
    """Ours beside every other implementation: total of forward and backward, and how many times faster ours is."""
    lines = []
    for name, case, rows in cases_of(results, tuple(OPERATIONS)):
        if red.count(name):
            lines.append(f"| {case} | refused: {red.count(name)} of its tests are red here | | | | | | |")
            continue
        by_name = {row["name"]: row for row in rows}
        ours = by_name.get(OURS)
        others = [f"{_short(row['name'])} {_against(row, ours)}" for row in rows if row["name"] not in (OURS, EAGER)]
        lines.append(
            f"| {case} | {_phases(ours)} | {_phases(by_name.get(EAGER))} | {_against(by_name.get(EAGER), ours)} | "
            f"{'; '.join(others)} | {_share(ours)} | {_memory(ours)} / {_memory(by_name.get(EAGER))} | {_error(ours)} |"
        )
    if not lines:
        return []
    head = ["case", "ours, µs: forward + backward", "eager, µs", "eager total", "others: total µs (× ours)"]
    head += ["% of peak, both ways", "peak MB, ours / eager", "error"]
    return ["", "## Operations", "", "| " + " | ".join(head) + " |", "|-" * len(head) + "|", *lines]


def steps(results: Value, red: Red) -> list[str]:
    names = ("teacher-step", "distillation-step", "teacher-inference", "student-inference")
    lines = []
    for _, case, rows in cases_of(results, names):
        if red:
            lines.append(f"| {case} | {red.refusal()} | | | |")
            continue
        for row in rows:
            lines.append(f"| {case} | {row['name']} | {_phases(row)} | {_speed(row)} | {_memory(row)} |")
    if not lines:
        return []
    head = ["case", "implementation", "µs by phase, gaps included", "images/s", "peak MB"]
    return ["", "## Training steps", "", "| " + " | ".join(head) + " |", "|-" * len(head) + "|", *lines]


def waits(results: Value, red: Red) -> list[str]:
    found = (results.get("profile") or {}).get("steps") or {}
    lines = []
    for name, step in found.items():
        if "failure" in step:
            lines.append(f"- {name}: failed: {_cell(step['failure'].strip().splitlines()[-1])}")
            continue
        if red:
            lines.append(f"- {name}: {red.refusal()}")
            continue
        idle = f", GPU idle {step['idle_share']:.0%}" if "idle_share" in step else ""
        lines.append(f"- {name}: {step['step_seconds'] * 1e3:.1f} ms, {step['launches']} launches{idle}; "
                     f"waits {step['waits']}; waiting lines {step['waiting_lines']}")  # fmt: skip
        lines += [
            f"    - {kernel['share']:.1%}, {kernel['count']} ×: `{kernel['name'][:90]}`"
            for kernel in step.get("kernels", [])[:8]
        ]
    return ["", "## Where a step's time goes", "", *lines] if lines else []


def trainings(results: Value, red: Red) -> list[str]:
    lines = []
    for run in (results.get("training") or {}).get("runs", []):
        if "failure" in run:
            lines.append(f"- {run['kind']}, {run['backend']}: failed: {_cell(run['failure'].strip().splitlines()[-1])}")
            continue
        if red:
            lines.append(f"- {run['kind']}, {run['backend']}: {red.refusal()}")
            continue
        peak = "" if run["peak_bytes"] is None else f", peak {run['peak_bytes'] / 1e6:.0f} MB"
        first, last = (run["history"][k]["total"] for k in (0, -1))
        lines.append(
            f"- {run['kind']}, {run['backend']}: {run['images_per_second']['median']:.1f} images/s{peak}, loss "
            f"{first:.4f} → {last:.4f} in {run['steps']} steps, held out abs_rel {run['held_out']['abs_rel']:.3f}"
        )
    return ["", "## Training", "", *lines] if lines else []


def tuned(results: Value, red: Red) -> list[str]:
    """Where another launch shape than the table's was faster."""
    lines = [
        f"- {question['name']}, {phase}: {best['candidate']} takes {best['ratio']:.2f} of the present time"
        + ("" if best["clear"] else " (within the spread)")
        for question in (results.get("tune") or {}).get("questions", [])
        for phase, best in (question.get("best") or {}).items()
    ]
    if lines and red:
        lines = [f"- {red.refusal()}"]
    return ["", "## Launch shapes that were faster", "", *lines] if lines else []


def failures(results: Value, red: Red) -> list[str]:
    """The tests that failed, and the rows."""
    lines = []
    tests = red.tests
    for name, failure in list(tests.items())[:FAILURES_SHOWN]:
        after = " (after a CUDA error in its process)" if failure["after_spoilt"] else ""
        lines.append(f"- `{name}`{after}: {_cell(failure['message'][:300])}")
    if len(tests) > FAILURES_SHOWN:
        lines.append(f"- … and {len(tests) - FAILURES_SHOWN} more in results.json")
    lines += [
        f"- {stage}: {case['name']}, {row['name']}: {row['status']}: {_cell(row['reason'])}"
        for stage, result in results.items()
        for benchmark in (result.get("results") or {}).values()
        for case in benchmark["cases"]
        for row in case["rows"]
        if row["status"] in ("failed", "refused")
    ]
    return ["", "## What failed", "", *lines] if lines else []


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _short(name: str) -> str:
    return name.replace("compiled reference", "compiled").replace("torch ", "")


def _phases(row: Value | None) -> str:
    """1.2 + 3.4 (teacher, forward, backward, update)."""
    if row is None or not row.get("times"):
        return "–" if row is None else row["status"]
    times = row["times"]
    found = [times[phase]["median"] for phase in ("teacher", "forward", "backward", "update") if phase in times]
    return " + ".join(f"{value:.0f}" if value >= 100 else f"{value:.1f}" for value in found)


def _against(row: Value | None, ours: Value | None) -> str:
    """Total µs and its multiple of ours."""
    if row is None:
        return "–"
    if not row.get("times"):
        return str(row["status"])
    total = row["times"]["total"]["median"]
    if ours is None or not ours.get("times"):
        return f"{total:.0f}"
    return f"{total:.0f} (×{total / max(ours['times']['total']['median'], 1e-9):.2f})"


def _share(row: Value | None) -> str:
    shares = (row or {}).get("share_of_roof") or {}
    return " / ".join(f"{shares[phase]:.0%}" for phase in ("forward", "backward") if phase in shares) or "–"


def _memory(row: Value | None) -> str:
    count = (row or {}).get("peak_bytes")
    return "–" if count is None else f"{count / 1e6:.0f}"


def _speed(row: Value) -> str:
    return f"{row['images_per_second']:.1f}" if "images_per_second" in row else "–"


def _error(row: Value | None) -> str:
    error = (row or {}).get("error")
    return "–" if not error else " / ".join(f"{error[key]:.1e}" for key in ("forward", "backward"))
