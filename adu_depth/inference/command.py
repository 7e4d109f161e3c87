"""The command `adu-depth predict`: its settings, and what it says."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rich.console import Console

from adu_depth.arguments import Positional
from adu_depth.data.camera_file import camera_from_numbers
from adu_depth.doctor.findings import counted
from adu_depth.errors import InputError
from adu_depth.evaluation.temperature import read_temperature
from adu_depth.geometry import Camera
from adu_depth.inference.point_cloud import PointCloudConfig
from adu_depth.inference.point_output import PointOutput
from adu_depth.inference.predict_files import exif_notes, needed_numbers, predict_files
from adu_depth.inference.predictor import Flip, Predictor
from adu_depth.inference.recording import Recording
from adu_depth.inference.video.config import VideoConfig
from adu_depth.inference.video.predict_clip import predict_clip
from adu_depth.inference.video.sources import Clip, LiveCamera, is_clip, open_clip
from adu_depth.progress import Progress
from adu_depth.schema import require_kinds
from adu_depth.stopping import Stopped
from adu_depth.training.loop import Interrupted


@dataclass(frozen=True)
class PredictConfig:
    """Predict depth for an image, a pair (--right), a folder of either, or a clip.

    Writes NAME_depth.png (16-bit, metres × 256), NAME_depth_color.png and, of a network that predicts it,
    NAME_uncertainty.png; of a clip NAME_depth.mp4 and how much it flickers, and the same command goes on with one that
    was stopped. A stereo teacher needs the calibration, a student with a reference focal length fx: the
    numbers here, or camera.toml beside the images (`adu-depth render` writes one). Images with ground
    truth and pairs are taken as stored, any other photo is turned upright as its EXIF orientation says.
    """

    checkpoint: Positional[Path]
    """A run folder (its best checkpoint where it was validated, else its newest), RUN/checkpoints/best, a checkpoint
    folder, or a file of `adu-depth export`."""
    source: Positional[Path]
    """Image, or folder of images (a stereo teacher's folder holds left/ and right/; sequences may be folders there), or
    a video file, or a camera: camera:0."""
    right: Path | None = None
    """The right image, or the folder of right images."""
    output: Path = Path("runs/predictions")
    fx: float | None = None
    """Focal length in pixels."""
    baseline: float | None = None
    """Distance of the two cameras in metres."""
    cx: float | None = None
    """Principal point in pixels (of a pair, and for points; a student's depth needs none)."""
    cy: float | None = None
    size: str = "trained"
    """What the network is run at: "trained", the size it was trained at; "full", each image's own; a factor of that
    (0.5); or one height and width (192x640). Depth and uncertainty are written at each image's own size."""
    flip: Flip = "none"
    """Test-time augmentation of a student: the mean with the mirrored image, plain or with Monodepth's ramp."""
    temperature: str | None = None
    """Factor on the predicted uncertainty: a number, or the temperature.json of `evaluate --fit-temperature`."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """"auto" is CUDA where there is one."""
    ply: bool = False
    """Also write NAME_points.ply: coloured points with normals, metres, x right, y down, z ahead of the left camera."""
    rerun: Path | None = None
    """Also write this .rrd file for the Rerun viewer: camera, image, depth and points of every image, in their order
    (`pip install 'adu-depth[rerun]'`)."""
    points: PointCloudConfig = field(default_factory=PointCloudConfig)
    """Which pixels become points of --ply and --rerun."""
    as_video: bool = False
    """The folder's images are the frames of a clip, in the order of their names."""
    video: VideoConfig = field(default_factory=VideoConfig)

    def __post_init__(self) -> None:
        require_kinds(self)


def predict_images(config: PredictConfig, console: Console) -> list[tuple[Path, str]]:
    """Predicts, writes the files, says what was done; returns the files that could not be used, with the reason."""
    if not config.ply and config.rerun is None and config.points != PointCloudConfig():
        raise InputError("points: they are settings of what --ply and --rerun write, and neither is given")
    if not (as_clip := config.as_video or is_clip(config.source)) and config.video != VideoConfig():
        raise InputError(f"video: its settings are a clip's, and {config.source} is none (a folder is, by --as-video)")
    if config.as_video and config.source.exists() and not (config.source.is_dir() or is_clip(config.source)):
        raise InputError(f"as_video: expected a folder of frames, got {config.source}")
    if as_clip and (config.ply or config.rerun is not None):
        raise InputError("ply, rerun: points are of images; take a folder of frames without --as-video")
    recording = None if config.rerun is None else Recording(config.rerun)  # what it lacks is said first
    points = PointOutput(config.points, config.ply, recording) if config.ply or recording else None
    predictor = Predictor.from_checkpoint(config.checkpoint, config.device, config.size, config.flip)
    clip = open_clip(config.source, config.right, predictor.stereo) if as_clip else None
    camera = camera_from_numbers(
        config.fx,
        cx=config.cx,
        cy=config.cy,
        baseline=config.baseline,
        source="the camera of --fx, --cx, --cy, --baseline",
        needed=needed_numbers(predictor.stereo, points is not None),
    )
    if config.temperature is not None and not predictor.predicts_uncertainty:
        raise InputError(f"temperature: it is for the uncertainty, and {config.checkpoint} predicts none")
    temperature = 1.0 if config.temperature is None else read_temperature(config.temperature)
    if clip is not None:
        return _predict_clip(config, clip, predictor, camera, temperature, console)
    with recording or nullcontext():
        outcome = predict_files(
            predictor,
            config.source,
            config.output,
            right=config.right,
            camera=camera,
            temperature=temperature,
            points=points,
        )
    if predictor.checkpoint != config.checkpoint:
        console.print(f"checkpoint {predictor.checkpoint}")
    console.print(f"wrote {len(outcome.written)} files to {config.output}")
    if recording is not None and recording.frames:
        console.print(f"wrote {recording.path}: {counted(recording.frames, 'image')}")
    for note in exif_notes(outcome):
        console.print(note)
    return outcome.failures


def _predict_clip(
    config: PredictConfig, clip: Clip, predictor: Predictor, camera: Camera | None, temperature: float, console: Console
) -> list[tuple[Path, str]]:
    try:
        outcome = predict_clip(
            predictor,
            clip,
            config.output,
            camera=camera,
            temperature=temperature,
            settings=config.video,
            progress=Progress(console),
        )
    except Stopped as stopped:
        advice, recorded = "the same command goes on with this clip", config.output / f"{clip.name}_recorded"
        if isinstance(clip, LiveCamera) and recorded.is_dir():
            advice = f"what the camera showed is kept: predict {recorded} --as-video"
        raise Interrupted(stopped.signum, advice) from stopped
    if predictor.checkpoint != config.checkpoint:
        console.print(f"checkpoint {predictor.checkpoint}")
    speed = "" if outcome.images_per_second is None else f", {outcome.images_per_second:.1f} images/s"
    console.print(f"wrote {', '.join(map(str, outcome.written))}: {counted(outcome.frames, 'frame')}{speed}")
    if config.video.stabilise:
        console.print(f"as the network says: {outcome.network_flicker}")
    console.print(f"{'stabilised' if config.video.stabilise else 'depth'}: {outcome.flicker}")
    for note in outcome.notes:
        console.print(note)
    return outcome.failures
