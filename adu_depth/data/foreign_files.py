"""Files that are no image that is read here: what they are by their first bytes, and what to do about it."""

from __future__ import annotations

import re

READ = "expected PNG, JPEG, WebP, TIFF, BMP or PPM"
VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".ts")
VIDEO_KINDS = "mp4, mov, avi, mkv, webm, mpg, flv, ogg, wmv or ts"
TAKE_FRAMES = "take its frames out first, such as by `ffmpeg -i VIDEO FOLDER/%06d.png`"
_CONVERT = "convert it to PNG or JPEG"
_VIDEO = f"a video: {TAKE_FRAMES}"
_KINDS = tuple(
    (re.compile(pattern, re.DOTALL), told)
    for pattern, told in (
        (rb".{4}ftyp(hei|hev|mif1|msf1)", f"a HEIC photo: {_CONVERT}"),
        (rb".{4}ftypavi[fs]", f"an AVIF image: {_CONVERT}"),
        (rb".{4}(ftyp|moov|mdat)|\0.{3}(wide|free|skip)", _VIDEO),
        (rb"RIFF.{4}AVI ", _VIDEO),
        (rb"\x1aE\xdf\xa3|\0\0\x01[\xb3\xba]|FLV\x01|OggS|0&\xb2u", _VIDEO),
        (rb"G.{187}G", _VIDEO),
        (rb"GIF8", f"a GIF: {_CONVERT}"),
        (rb"\0\0\0\x0cjP|\xff\x4f\xff\x51", f"a JPEG 2000 image: {_CONVERT}"),
        (rb"\0\0\0\x0cJXL |\xff\x0a", f"a JPEG XL image: {_CONVERT}"),
        (rb"v/1\x01", f"an OpenEXR image: {_CONVERT}"),
        (rb"#\?RADIANCE", f"a Radiance image: {_CONVERT}"),
        (rb"8BPS", f"a Photoshop file: {_CONVERT}"),
        (rb"%PDF", f"a PDF: {_CONVERT}"),
        (rb"P[Ff]\s", "a PFM map, of depth or disparity"),
        (rb"\x93NUMPY", "a numpy array; ground truth may be one, an image not"),
        (rb"PK\x03\x04", "a zip: unpack it first"),
        (rb"\x1f\x8b|BZh|\xfd7zXZ", "a compressed file: unpack it first"),
        (rb"version https://git-lfs", "a Git LFS pointer, not the file itself: run `git lfs pull`"),
        (rb"\s*<(?i:!doctype|html)", "a web page saved in the image's place: download it again"),
        (rb"\0+\Z", "nothing but zeros: copy or download it again"),
    )
)


def foreign(head: bytes) -> str:
    """What a file is that begins so and is no image of a known kind, with what to do; "" if that is not known."""
    return next((told for pattern, told in _KINDS if pattern.match(head)), "")


def is_video(head: bytes) -> bool:
    """Whether a file that begins so is a video."""
    return foreign(head) == _VIDEO


def what_it_is(data: bytes) -> str:
    """What came and what was expected, in words, for a message."""
    if not data:
        return f"{READ}, got an empty file"
    told = foreign(data[:512])
    return f"it is {told}" if told else f"{READ} ({len(data)} bytes)"
