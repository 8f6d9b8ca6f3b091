"""Slices as pictures: the image between its voxels, contours drawn smoothly, and a widget of the panel beside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PySide6 import QtCore, QtGui, QtWidgets
from scipy import ndimage

SIDE, TEXT, MARGIN = 560, 64, 14  # of a slice, of the lines below, and around a widget
BACKGROUND, INK = "#f4f4f4", "#202020"


@dataclass(frozen=True, eq=False)
class Contour:
    """A mask (rows, columns), its colour (red, green, blue from 0 to 255), how thick its line is, and how much of the
    colour lies over what it holds."""

    mask: np.ndarray
    color: tuple[int, int, int]
    width: int = 2
    fill: float = 0.0


def slicePicture(image: np.ndarray, spacing: Sequence[float], contours: Sequence[Contour], window) -> np.ndarray:
    """uint8 (SIDE, SIDE, 3): a slice as large as fits.

    Args:
        image: (rows, columns).
        spacing: of rows and columns, in millimetres.
        window: the values that are black and white.
    """
    factor = SIDE / max(np.array(image.shape) * spacing)
    zoom = [factor * mm for mm in spacing]
    low, high = window
    gray = np.clip((_zoomed(image.astype(np.float32), zoom, 3) - low) / (high - low), 0, 1)
    picture = np.repeat(255 * gray[..., None], 3, axis=2)
    for one in contours:
        inside = _smooth(one.mask, zoom)
        color = np.array(one.color, np.float32)
        if one.fill:
            picture[inside] += one.fill * (color - picture[inside])
        away = np.where(inside, ndimage.distance_transform_edt(inside), ndimage.distance_transform_edt(~inside)) - 0.5
        line = np.clip(one.width / 2 + 0.5 - away, 0, 1)[..., None]
        if not one.mask.any():
            continue
        picture += line * (color - picture)
    whole = np.zeros((SIDE, SIDE, 3), np.uint8)
    top, left = ((SIDE - length) // 2 for length in picture.shape[:2])
    whole[top : top + picture.shape[0], left : left + picture.shape[1]] = picture.clip(0, 255)
    return whole


def beside(slice_: np.ndarray, widget: QtWidgets.QWidget, caption: str) -> QtGui.QImage:
    """A slice, a widget as it looks now, and a caption below both."""
    scale = 1.3
    width = int(scale * widget.width()) + 2 * MARGIN
    whole = QtGui.QImage(SIDE + width, SIDE + TEXT, QtGui.QImage.Format.Format_RGB32)
    whole.fill(QtGui.QColor(BACKGROUND))
    painter = QtGui.QPainter(whole)
    data = np.ascontiguousarray(slice_)
    painter.drawImage(0, 0, QtGui.QImage(data.data, SIDE, SIDE, 3 * SIDE, QtGui.QImage.Format.Format_RGB888))
    drawn = QtGui.QPixmap(widget.size() * 2)
    drawn.setDevicePixelRatio(2)
    widget.render(drawn)
    height = int(scale * widget.height())
    painter.setRenderHint(QtGui.QPainter.RenderHint.SmoothPixmapTransform)
    place = QtCore.QRect(SIDE + MARGIN, max(MARGIN, (SIDE - height) // 2), int(scale * widget.width()), height)
    painter.drawPixmap(place, drawn)
    painter.setPen(QtGui.QColor(INK))
    painter.setFont(QtGui.QFont("Sans", 14))
    flags = QtCore.Qt.TextFlag.TextWordWrap | QtCore.Qt.AlignmentFlag.AlignCenter
    painter.drawText(QtCore.QRect(MARGIN, SIDE, whole.width() - 2 * MARGIN, TEXT), flags, caption)
    painter.end()
    return whole


def saveAnimated(frames: Sequence[tuple[QtGui.QImage, int]], path, stills: Sequence[QtGui.QImage]) -> None:
    """Frames, each with its milliseconds, as an animated GIF that goes on for ever.

    Args:
        stills: what the colours are chosen by: one palette for all, else each frame flickers.
    """
    from PIL import Image  # which comes with matplotlib

    known = [_forPillow(one) for one in stills]
    strip = Image.new("RGB", (known[0].width, known[0].height * len(known)))
    for index, one in enumerate(known):
        strip.paste(one, (0, index * one.height))
    palette = strip.quantize(240, Image.Quantize.MEDIANCUT)
    pictures = [_forPillow(one).quantize(palette=palette, dither=Image.Dither.NONE) for one, _ in frames]
    times = [milliseconds for _, milliseconds in frames]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=times, loop=0, optimize=True)


def _forPillow(image: QtGui.QImage, width: int = 900):
    from PIL import Image

    image = image.convertToFormat(QtGui.QImage.Format.Format_RGB888)
    data = np.frombuffer(image.constBits(), np.uint8).reshape(image.height(), image.bytesPerLine())
    picture = Image.fromarray(data[:, : 3 * image.width()].reshape(image.height(), image.width(), 3).copy())
    return picture.resize((width, round(picture.height * width / picture.width)), Image.Resampling.LANCZOS)


def _zoomed(array: np.ndarray, zoom: Sequence[float], order: int) -> np.ndarray:
    """As if each voxel were an area, whose middle has its value."""
    return ndimage.zoom(array, zoom, order=order, mode="nearest", grid_mode=True)


def _smooth(mask: np.ndarray, zoom: Sequence[float]) -> np.ndarray:
    """A mask between its voxels."""
    wide = ndimage.zoom(mask.astype(np.float32), zoom, order=1, mode="nearest", grid_mode=True)
    return ndimage.gaussian_filter(wide, [0.35 * factor for factor in zoom]) >= 0.5
