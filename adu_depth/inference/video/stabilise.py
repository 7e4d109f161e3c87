"""Depth of a clip made steadier: each frame's is blended with that of the frame before, carried along.

Depth is not a colour that stays with a point while the camera moves. It is carried in three steps: the flow says which
pixel showed the same point before; how the camera moved is found from those points and their depths; and the point's
depth is what it is from where the camera is now.
"""

from __future__ import annotations

import cv2
import numpy as np

from adu_depth.geometry import Camera
from adu_depth.inference.video.flow import Motion, warp

_POINTS = 2000  # that the camera's motion is found from
_FEWEST = 60
_LEAST_INLIERS = 0.3
_STRAY = 0.003  # of the picture's larger side: how far from where the camera's motion puts a point it may be seen
_DEPTH_ERROR = 0.3  # of a prediction: by so much of its parallax a point of wrong depth is seen off its place
_GREY = 20.0  # grey levels of 255 by which a point's picture may have changed
_JUMP = 0.25  # of ln depth: a larger difference is no flicker, one of both frames is wrong


class Stabiliser:
    """A recursive filter over the frames of one clip.

        ln d̂_t = (1 − w) ln d_t + w ln d̂_{t−1→t},     w = c · o / (1 + o),   o = s / (1 − s) · (b_t / b_{t−1})²

    s: `strength`. d̂_{t−1→t}: the result of the frame before, carried to this one. b: the scale of the error that the
    network predicts for either frame (1 of one that predicts none): where it is less sure now than it was before, more
    of the frame before is taken. c, in [0, 1], is 0 where the flow is not consistent there and back, and falls with

        exp(−(r / (0.003 side + 0.3 parallax))²)
                                 r: how far from where the camera's own motion puts the point it is seen, in pixels; the
                                 allowance is for flow, and for depth that is wrong by 30 %. What moves by itself, and
                                 what is followed wrongly, stays as the network says
        exp(−(g / 20 levels)²)   g: how much its grey changed
        exp(−(Δ / 0.25)²)        Δ: how far apart both depths are, of ln d

    The camera's motion is found by OpenCV's RANSAC over 3-D points of the frame before and their pixels in this one
    (perspective-n-point), in the metres of the prediction. Where it is not found, after a cut for example, the frame
    stays as the network says, and counts in `unfiltered`.

    The filter is ours, of known parts: a recursive average along the flow is Lai et al.'s and Bonneel et al.'s subject
    (1808.00449; "Blind Video Temporal Consistency", SIGGRAPH Asia 2015), weights by the variances a Kalman filter's.

    Args:
        strength: s, from 0 (nothing is changed) to below 1.
    """

    def __init__(self, strength: float) -> None:
        if not 0 <= strength < 1:
            raise ValueError(f"strength must be from 0 to below 1, got {strength}")
        self.strength = strength
        self.unfiltered = 0
        self._before: tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray] | None = None

    def add(
        self,
        grey: np.ndarray,
        log_depth: np.ndarray,
        log_scale: np.ndarray | None,
        motion: Motion | None,
        camera: Camera | None = None,
    ) -> np.ndarray:
        """The next frame's ln depth, filtered: H×W float32. grey: H×W uint8; log_depth, log_scale: H×W.

        motion: what moved since the frame before, None of the first. camera: where None, the focal length is taken for
        the picture's width, and the principal point for its middle; they matter little, and where it turns.
        """
        log_depth = np.asarray(log_depth, dtype=np.float32)
        matrix = camera_matrix(camera, log_depth.shape)
        result, scale = log_depth, log_scale
        if self._before is not None and motion is not None and self.strength > 0:
            carried = self._carried(log_depth, motion, matrix)
            if carried is None:
                self.unfiltered += 1
            else:
                old_depth, weight = carried
                weight = weight * self._looks_alike(grey, motion)
                odds: float | np.ndarray = self.strength / (1 - self.strength)
                old_scale = self._before[2]
                if log_scale is not None and old_scale is not None:
                    old_scale = warp(old_scale, motion.backward)
                    odds = odds * np.exp(2 * np.clip(log_scale - old_scale, -3.0, 3.0))
                weight = np.nan_to_num(weight * odds / (1 + odds))
                usable = np.isfinite(old_depth) & np.isfinite(log_depth)
                result = np.where(usable, log_depth + weight * (old_depth - log_depth), log_depth).astype(np.float32)
                if log_scale is not None and old_scale is not None:
                    scale = np.where(usable, log_scale + weight * (np.nan_to_num(old_scale) - log_scale), log_scale)
        self._before = (grey, result, scale, matrix)
        return result

    def _looks_alike(self, grey: np.ndarray, motion: Motion) -> np.ndarray:
        assert self._before is not None
        difference = warp(self._before[0], motion.backward) - grey
        return np.exp(-np.square(difference / _GREY))

    def _carried(
        self, log_depth: np.ndarray, motion: Motion, matrix: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """The ln depth of the frame before as it is from where the camera is now, and how far it is to be trusted."""
        assert self._before is not None
        height, width = log_depth.shape
        columns, rows = np.meshgrid(np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64))
        depth = np.exp(warp(self._before[1], motion.backward).astype(np.float64))
        x, y = columns + motion.backward[..., 0], rows + motion.backward[..., 1]
        points = back_projected(x, y, depth, self._before[3])
        usable = motion.backward_holds & np.isfinite(depth)
        pixels = np.stack([columns, rows], axis=-1)
        stray = _STRAY * max(height, width)
        moved = camera_motion(points[usable], pixels[usable], matrix, 2 * stray)
        if moved is None:
            return None
        turn, shift = moved
        turned = points @ turn.T
        now = turned + shift
        ahead = now[..., 2] > 1e-3
        z = np.where(ahead, now[..., 2], 1.0)
        expected = projected(now, z, matrix)
        parallax = np.linalg.norm(expected - projected(turned, np.maximum(turned[..., 2], 1e-3), matrix), axis=-1)
        off = np.linalg.norm(expected - pixels, axis=-1) / (stray + _DEPTH_ERROR * parallax)
        carried = np.log(z)
        trust = np.exp(-np.square(off)) * np.exp(-np.square((carried - log_depth) / _JUMP))
        return carried, np.where(usable & ahead, trust, 0.0)


def camera_matrix(camera: Camera | None, size: tuple[int, ...]) -> np.ndarray:
    """3×3 of a camera for pictures of `size` (height, width); what is not known, see `Stabiliser.add`."""
    height, width = size
    numbers = [float(width), float(width), (width - 1) / 2, (height - 1) / 2]
    if camera is not None:
        given = (float(camera.fx), float(camera.fy), float(camera.cx), float(camera.cy))
        numbers = [own if np.isfinite(own) else guess for own, guess in zip(given, numbers, strict=True)]
    fx, fy, cx, cy = numbers
    return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])


def back_projected(x: np.ndarray, y: np.ndarray, depth: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """…×3 points in the camera's axes, metres, at these pixels and depths."""
    across, down = (x - matrix[0, 2]) / matrix[0, 0], (y - matrix[1, 2]) / matrix[1, 1]
    return np.stack([across * depth, down * depth, depth], axis=-1)


def projected(points: np.ndarray, z: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """…×2 pixels of …×3 points, seen at depth z."""
    flat = points[..., :2] / z[..., None]
    return np.asarray(flat * matrix[[0, 1], [0, 1]] + matrix[:2, 2])


def camera_motion(
    points: np.ndarray, pixels: np.ndarray, matrix: np.ndarray, within: float
) -> tuple[np.ndarray, np.ndarray] | None:
    """The turn (3×3) and shift (3, metres) that bring N×3 points of the frame before to where they are seen now, N×2
    pixels, as most of them agree to `within` pixels; None where too few do. The same for the same points."""
    if len(points) < _FEWEST:
        return None
    chosen = np.linspace(0, len(points) - 1, min(_POINTS, len(points))).round().astype(int)
    points, pixels = points[chosen], pixels[chosen]
    if not np.abs(points).max() < 1e6:
        return None
    cv2.setRNGSeed(0)
    found, turn, shift, inliers = cv2.solvePnPRansac(
        points, pixels, matrix, None, iterationsCount=100, reprojectionError=within, flags=cv2.SOLVEPNP_EPNP
    )
    if not found or inliers is None or len(inliers) < _LEAST_INLIERS * len(points):
        return None
    kept = inliers[:, 0]
    turn, shift = cv2.solvePnPRefineLM(points[kept], pixels[kept], matrix, None, turn, shift)
    rotation = cv2.Rodrigues(turn)[0]
    return rotation, shift[:, 0]
