"""The doctor describes a folder of plain pictures, which has nothing to be wrong with."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from adu_depth.cli import main
from tests.data.test_pictures import COLOURS, GREY, MILLIMETRES, save


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["doctor", *arguments])
    return int(ended.value.code or 0)


def diagnosed(root: Path, tmp_path: Path, *more: str) -> tuple[int, dict[str, list[dict[str, str]]]]:
    code = run(str(root), "--json", str(tmp_path / "told.json"), *more)
    found: dict[str, list[dict[str, str]]] = {}
    for finding in json.loads((tmp_path / "told.json").read_text())["findings"]:
        found.setdefault(finding["check"], []).append(finding)
    return code, found


@pytest.mark.parametrize("more", [(), ("--layout", "pictures")])
def test_pictures_are_described(more: tuple[str, ...], tmp_path: Path) -> None:
    for name in ("a/0.jpg", "a/1.jpg", "b/2.png"):
        save(tmp_path / "photos" / name, COLOURS)
    save(tmp_path / "photos" / "b" / "3.png", GREY.T.copy())
    save(tmp_path / "photos" / "b" / "4.png", COLOURS.astype(np.uint16) * 257)
    code, found = diagnosed(tmp_path / "photos", tmp_path, *more)
    assert code == 0
    [told, grey] = found["pictures"]
    assert told["text"] == "5 pictures, no depth: 4 of colours, 1 grey, 1 of 16 bits"
    assert (grey["level"], "1 of 5 pictures are grey (such as b/3.png)" in grey["text"]) == ("warning", True)
    [sizes] = found["image sizes"]
    assert sizes["text"] == "2 sizes, height × width 24×40 (4), 40×24 (1); 1 picture upright"
    [truth] = found["ground truth"]
    assert (truth["level"], truth["text"]) == ("OK", "0 of 5 frames have ground truth")
    assert "--data.mix ROOT SHARE labels=false" in truth["advice"]
    assert found["layout"][0]["text"] == "pictures, 2 sequences"
    assert not [finding for each in found.values() for finding in each if finding["level"] == "error"]


def test_those_that_say_nothing_are_counted(tmp_path: Path) -> None:
    """They were in no count: 5 pictures, of which 3 were of colours and 0 grey."""
    for name in ("0.png", "1.jpg", "2.png", "3.png"):
        save(tmp_path / "photos" / name, COLOURS)
    (tmp_path / "photos" / "2.png").write_bytes(b"no picture at all")
    (tmp_path / "photos" / "3.png").write_bytes(b"")
    code, found = diagnosed(tmp_path / "photos", tmp_path)
    assert code == 1, "they are empty, or no pictures"
    told, unknown = found["pictures"]
    assert told["text"] == "4 pictures, no depth: 2 of colours, 0 grey, 2 unknown"
    assert unknown["text"].startswith("2 of 4 pictures do not say what they are in their first bytes")
    assert unknown["where"] == [str(tmp_path / "photos" / name) for name in ("2.png", "3.png")]
    assert found["image sizes"][0]["text"].startswith("1 size, height × width 24×40 (2); 0 pictures upright")


def test_one_that_is_cut_short_is_still_an_error(tmp_path: Path) -> None:
    save(tmp_path / "photos" / "0.png", COLOURS)
    save(tmp_path / "photos" / "1.png", COLOURS)
    whole = (tmp_path / "photos" / "1.png").read_bytes()
    (tmp_path / "photos" / "1.png").write_bytes(whole[:-200])
    code, found = diagnosed(tmp_path / "photos", tmp_path)
    assert code == 1
    assert found["file ends"][0]["where"] == [str(tmp_path / "photos" / "1.png")]


def test_what_is_no_folder_of_pictures_is_no_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "none").mkdir()
    assert run(str(tmp_path / "none")) == 2
    assert "no known layout of stereo pairs" in capsys.readouterr().err
    for name, pixels in (("rgb/0.jpg", COLOURS), ("depth/0.png", MILLIMETRES)):
        save(tmp_path / "room" / name, pixels)
    assert run(str(tmp_path / "room")) == 2
    assert "rgb and depth, as several sets have them" in capsys.readouterr().err
    save(tmp_path / "maps" / "0.jpg", COLOURS)
    assert cv2.imwrite(str(tmp_path / "maps" / "0_d.png"), MILLIMETRES)
    assert run(str(tmp_path / "maps")) == 2
    assert "one channel of 16 bits, as a map of depth has" in capsys.readouterr().err
