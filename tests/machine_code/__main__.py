"""Command line of the gate: print the table, or write it as the new budgets."""

from __future__ import annotations

import argparse
import json
import sys

from tests.machine_code.room import all_rooms
from tests.machine_code.table import report, write_budgets


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.machine_code", description=__doc__)
    parser.add_argument("--room", help="only this room")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--update", action="store_true", help="write the measured rows into tests/machine_code/budgets.json"
    )
    chosen = parser.parse_args()
    measured = report([room for room in all_rooms() if chosen.room in (None, room.name)])
    if chosen.update:
        write_budgets(measured)
    if chosen.json:
        json.dump(measured, sys.stdout)
    else:
        _print(measured["kernels"], measured["compilations"])


def _print(kernels: dict[str, dict[str, int]], compilations: dict[str, dict[str, int]]) -> None:
    for number, (name, figures) in enumerate(kernels.items()):
        if number % 20 == 0:
            print(f"{'':72} " + " ".join(f"{column[:9]:>9}" for column in figures))
        print(f"{name:72} " + " ".join(f"{value:9}" for value in figures.values()))
    for room, counts in compilations.items():
        print(f"compilations over image sizes, {room}: {counts}")


if __name__ == "__main__":
    main()
