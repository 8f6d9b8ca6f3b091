"""PNG, JPEG, TIFF and BMP, by Pillow: modes, pages, orientation and damage, none of which ITK tells.

Pillow has no colours of 16 bits; these, ITK reads. How many dots a file wants to have on an inch of paper says nothing
of a patient, and is left out.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..errors import InputError, MissingDependencyError
from .deep_alpha import is_tiff_of_four_bytes, know_more_tiffs, png_of_four_bytes, values_of_four_bytes
from .file_grid import COPY_AGAIN
from .itk_messages import itk_warnings_logged
from .itk_reading import itk_reader

log = logging.getLogger(__name__)

_ORIENTATION = 0x112  # EXIF
_BITS, _PHOTOMETRIC, _WHITE_IS_ZERO, _SAMPLES = 258, 262, 0, 277  # TIFF
_SAVE = "Save it as PNG or TIFF with grey values or red, green and blue."
_MOST_PIXELS = 2**30  # of all pages; Pillow bounds those of one
_STARTS = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"BM": "BMP",
}
_OTHERS = {b"GIF8": "a GIF", b"RIFF": "a WebP image or a video", b"%PDF": "a PDF", b"PK\3\4": "a zip archive"}


def read_format(path: Path, numbers: bool = False) -> np.ndarray:
    """The pixels of a file: (n, y, x) grey, or (n, y, x, 3) red, green and blue; upright, without transparency.

    Args:
        numbers: of a palette's colours, instead of these.

    Raises:
        InputError: it is empty, damaged, of another kind, animated, has pages of different sizes, too many pixels, or
            colours for printing.
    """
    kind = _kind(path)
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise MissingDependencyError("Reading images needs Pillow.", "Install it: pip install pillow.") from error
    with warnings.catch_warnings(), itk_warnings_logged(path):  # libtiff prints, and ITK has it, too
        warnings.simplefilter("ignore")  # of many pixels, of odd tags
        try:
            know_more_tiffs()
            four_bytes = png_of_four_bytes(path) if kind == "PNG" else None
            with Image.open(four_bytes or path, formats=(kind, "MPO") if kind == "JPEG" else (kind,)) as image:
                if four_bytes is None and _is_deep_colour(path, image):
                    return _by_itk(path)
                return _frames(path, kind, image, numbers, four_bytes is not None)
        except Image.DecompressionBombError as error:
            raise InputError(f"{path} is larger than any image: {_bomb(error)}.", "Cut or shrink it first.") from error
        except UnidentifiedImageError:
            if kind == "TIFF":  # of kinds that Pillow does not know, ITK reads some
                _refuse_what_itk_mistakes(path)
                return _by_itk(path)
            raise InputError(f"{path} is damaged: its {kind} header cannot be read.", COPY_AGAIN) from None
        except (OSError, SyntaxError, ValueError, EOFError, TypeError, IndexError, KeyError) as error:
            raise InputError(f"{path} is damaged or incomplete: {_reason(error)}.", COPY_AGAIN) from error


def _kind(path: Path) -> str:
    """By its content, whatever its name says."""
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    if not start:
        raise InputError(f"{path} is empty: it has no bytes.", COPY_AGAIN)
    kind = next((kind for first, kind in _STARTS.items() if start.startswith(first)), None)
    if kind is None:
        other = next((name for first, name in _OTHERS.items() if start.startswith(first)), None)
        what = f"is {other}, which is not read" if other else "is no PNG, JPEG, TIFF or BMP, whatever its name says"
        raise InputError(f"{path} {what}.", _SAVE)
    return kind


def _frames(path: Path, kind: str, image, numbers: bool, four_bytes: bool) -> np.ndarray:
    count = getattr(image, "n_frames", 1)
    pixels = count * image.width * image.height
    if pixels > _MOST_PIXELS:
        raise InputError(f"{path} is larger than any image: {pixels} pixels on {count} pages.", "Give fewer pages.")
    if count > 1 and kind == "PNG":
        raise InputError(f"{path} is an animation of {count} pictures.", "Save the picture that you want as PNG.")
    if count > 1 and kind == "JPEG":
        log.warning("%s holds %d pictures: the first was taken.", path, count)
        count = 1
    frames = []
    for index in range(count):
        image.seek(index)
        frame = _pixels(path, image, numbers, four_bytes)
        if frames and (frame.shape != frames[0].shape or frame.dtype != frames[0].dtype):
            sizes = " and ".join(f"{one.shape[1]} x {one.shape[0]}" for one in (frames[0], frame))
            raise InputError(
                f"{path} has pages of different kinds: {sizes} pixels on pages 1 and {index + 1}.",
                "Save each page as an image of its own.",
            )
        frames.append(frame)
    return np.stack(frames) if len(frames) > 1 else frames[0][None]


def _pixels(path: Path, image, numbers: bool, four_bytes: bool) -> np.ndarray:
    """(y, x) or (y, x, 3) of the page that is open; ``four_bytes``: see ``png_of_four_bytes``."""
    from PIL import ImageOps

    mode, white_is_zero = image.mode, False
    if mode in ("CMYK", "LAB", "HSV") or mode.startswith("YCbCr"):
        raise InputError(f"{path} has the colours {mode}, which are for printing or processing.", _SAVE)
    if image.format == "TIFF":
        white_is_zero = image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO and mode[0] in "IF"
        four_bytes = is_tiff_of_four_bytes(image)
    orientation = image.getexif().get(_ORIENTATION, 1)
    if image.format in ("JPEG", "MPO", "PNG") and orientation in range(2, 9):
        image = ImageOps.exif_transpose(image)
        log.warning(
            "%s says that it is to be turned (EXIF orientation %d): the result lies on the upright image of %d x %d "
            "pixels, as viewers show it.",
            path,
            orientation,
            *image.size,
        )
    if mode == "P" and numbers:
        return np.asarray(image)
    if mode in ("P", "PA"):
        image = image.convert("RGBA" if "transparency" in image.info or mode == "PA" else "RGB")
    elif mode == "1":
        image = image.convert("L")
    elif mode in ("La", "RGBa"):
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[mode])
    array = np.asarray(image)
    if four_bytes:
        array = values_of_four_bytes(image, array)
    if image.mode in ("LA", "RGBA"):
        if array[..., -1].min() < np.iinfo(array.dtype).max:
            log.warning("%s is transparent in places: its transparency was left out.", path)
        array = array[..., 0] if array.shape[-1] == 2 else array[..., :3]
    elif image.mode == "RGBX":
        array = array[..., :3]
    array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    if white_is_zero:
        array = (np.iinfo(np.uint16).max if mode[0] == "I" else array.max()) - array
    return array


def _refuse_what_itk_mistakes(path: Path) -> None:
    """ITK reads white as black where zero is white, and takes transparency for more columns."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    with path.open("rb") as file:
        tags = ImageFileDirectory_v2(file.read(8))
        file.seek(tags.next)
        tags.load(file)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO or tags.get(_SAMPLES, 1) == 2:
        raise InputError(f"{path} is a TIFF of a kind that is not read here: {_told(tags)}.", _SAVE)


def _told(tags) -> str:
    bits = tags.get(_BITS, (1,))
    white = ", with white stored as zero" if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else ""
    return f"{len(bits)} values of {max(bits)} bits in each pixel{white}"


def _is_deep_colour(path: Path, image) -> bool:
    """Whether an image has colours of 16 bits, of which Pillow keeps 8 without a word."""
    if image.mode not in ("RGB", "RGBA", "RGBX", "RGBa") or is_tiff_of_four_bytes(image):
        return False
    if image.format == "TIFF":
        return max(image.tag_v2.get(_BITS, (8,))) > 8
    with path.open("rb") as file:
        return image.format == "PNG" and file.read(25)[24] == 16


def _by_itk(path: Path) -> np.ndarray:
    with itk_reader(path, hint=f"{COPY_AGAIN} {_SAVE}") as reader:
        image = reader.Execute()
    array = sitk.GetArrayFromImage(image)
    components = image.GetNumberOfComponentsPerPixel()
    if components not in (1, 3, 4):
        raise InputError(f"{path} has {components} values in each pixel, which are no colours.", _SAVE)
    if components > 1:
        array = np.ascontiguousarray(array[..., :3])
    return array if image.GetDimension() == 3 else array[None]


def _reason(error: Exception) -> str:
    words = str(error).strip().rstrip(".")
    return words[:200] or type(error).__name__


def _bomb(error: Exception) -> str:
    """The number of pixels out of Pillow's sentence."""
    digits = "".join(letter if letter.isdigit() else " " for letter in str(error)).split()
    return f"{digits[0]} pixels" if digits else "it would not fit into memory"
