"""The first directory of a TIFF file; EXIF is such a file inside another one."""

from __future__ import annotations

import struct
from typing import NamedTuple

MOST_NUMBERS = 1_000_000  # strips or tiles of one picture
_TYPES = {1: "B", 3: "H", 4: "I", 7: "B", 13: "I", 16: "Q", 18: "Q"}  # those that whole numbers, or bytes, come in


class TagError(Exception):
    """The directory, or a number in it, is not as the format says."""


class Tag(NamedTuple):
    """letter: struct's, of one value. size: how many there are. at: the place of the first."""

    letter: str
    size: int
    at: int


class Tags:
    """The whole numbers of a directory, by tag; read when they are asked for."""

    def __init__(self, data: bytes, order: str, found: dict[int, Tag]) -> None:
        self._data, self._order, self._found = data, order, found

    def __contains__(self, tag: int) -> bool:
        return tag in self._found

    def numbers(self, tag: int) -> tuple[int, ...]:
        """All values of a tag; none where it is absent. TagError if they are not all in the file."""
        if tag not in self._found:
            return ()
        letter, size, at = self._found[tag]
        if size > MOST_NUMBERS:
            raise TagError(f"tag {tag} has {size} numbers")
        if size * struct.calcsize(letter) > len(self._data) - at:
            raise TagError(f"tag {tag} points outside the file")
        return struct.unpack_from(f"{self._order}{size}{letter}", self._data, at)

    def data(self, tag: int) -> bytes:
        """A tag's bytes; none where it is absent, or its values are no bytes. TagError if they are not all there."""
        letter, size, at = self._found.get(tag, Tag("", 0, 0))
        if letter != "B":
            return b""
        if size > len(self._data) - at:
            raise TagError(f"tag {tag} points outside the file")
        return self._data[at : at + size]

    def number(self, tag: int, default: int | None = None) -> int:
        """The first value. TagError where the tag is absent and there is no default."""
        found = self.numbers(tag)
        if found:
            return int(found[0])
        if default is None:
            raise TagError(f"tag {tag} is missing")
        return default

    def patch(self, tag: int, value: int) -> tuple[int, bytes]:
        """(place, bytes) that make `value` the first of a tag."""
        letter, _, at = self._found[tag]
        return at, struct.pack(f"{self._order}{letter}", value)


def read_tags(data: bytes) -> Tags:
    """The first directory. struct.error or IndexError if the data end before it, TagError if it is none."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        raise TagError("expected II or MM")
    (version,) = struct.unpack_from(f"{order}H", data, 2)
    if version == 43:
        (at,) = struct.unpack_from(f"{order}Q", data, 8)
        count_form, entry_form, inline = "Q", "HHQ", 8
    else:
        (at,) = struct.unpack_from(f"{order}I", data, 4)
        count_form, entry_form, inline = "H", "HHI", 4
    (count,) = struct.unpack_from(order + count_form, data, at)
    at += struct.calcsize(order + count_form)
    if count > 65535:
        raise TagError(f"a directory of {count} tags")
    found: dict[int, Tag] = {}
    for _ in range(count):
        tag, kind, number = struct.unpack_from(order + entry_form, data, at)
        at += struct.calcsize(order + entry_form)
        letter = _TYPES.get(kind)
        if letter is not None:
            place = at
            if number * struct.calcsize(letter) > inline:
                (place,) = struct.unpack_from(order + ("Q" if inline == 8 else "I"), data, at)
            found.setdefault(tag, Tag(letter, number, place))
        at += inline
    return Tags(data, order, found)
