"""What a folder of plain pictures holds: there is no depth to check, so it is described."""

from __future__ import annotations

from collections import Counter

from adu_depth.data.pictures import Pictures
from adu_depth.doctor.findings import OK, WARNING, Report, counted

MOST_SIZES = 5


def describe_pictures(dataset: Pictures, report: Report) -> None:
    """How many, of what sizes, grey or of colours; by every picture's first bytes."""
    looks = [look for name in dataset.names if (look := dataset.looks[name]) is not None]
    grey, deep = sum(look.grey for look in looks), sum(look.bits > 8 for look in looks)
    kinds = [f"{len(looks) - grey} of colours", f"{grey} grey"] + ([f"{deep} of 16 bits"] if deep else [])
    kinds += [f"{len(dataset) - len(looks)} unknown"] if len(looks) < len(dataset) else []
    report.add("pictures", OK, f"{counted(len(dataset), 'picture')}, no depth: {', '.join(kinds)}")
    if unknown := [str(dataset.images[name]) for name in dataset.names if dataset.looks[name] is None]:
        report.add(
            "pictures",
            WARNING,
            f"{len(unknown)} of {counted(len(dataset), 'picture')} do not say what they are in their first bytes: they "
            "are in none of these counts, nor among the sizes",
            unknown,
            "look at them: whoever reads one that is no picture ends there",
        )
    for note in dataset.notes:
        report.add("pictures", WARNING, note)
    sizes = Counter(size for index in range(len(dataset)) if (size := dataset.image_size(index)) is not None)
    told = ", ".join(f"{height}×{width} ({count})" for (height, width), count in sizes.most_common(MOST_SIZES))
    more = f" and {len(sizes) - MOST_SIZES} more" if len(sizes) > MOST_SIZES else ""
    upright = sum(count for (height, width), count in sizes.items() if height > width)
    report.add(
        "image sizes",
        OK,
        f"{counted(len(sizes), 'size')}, height × width {told}{more}; {counted(upright, 'picture')} upright",
        advice="" if len(sizes) == 1 else "train with --data.fit resize or centre",
    )
