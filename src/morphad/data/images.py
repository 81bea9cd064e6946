"""One image file to one uint8 array, safely: the only place where untrusted image bytes are decoded."""

import io
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, UnidentifiedImageError
from PIL import Image as Pillow
from PIL.ImageFile import ImageFile

from morphad.base.errors import BadInputError
from morphad.settings import Decoding

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})

# Sizes are checked here, from the header; damage that Pillow can read past is not worth a line on the terminal.
warnings.filterwarnings("ignore", category=Pillow.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\..*")

_DEFAULT = Decoding()
_STRIP = 1 << 22  # pixels copied at a time

_GREY = {"1", "L", "LA"}
_COLOUR = {"P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr"}
_RAW_16_BIT = re.compile(r";16([LBN])$")


class UnreadableImageError(BadInputError):
    """A file that is refused: not an image of a known format, damaged, too large, or ambiguous.

    Attributes:
        name: The file as the user knows it.
        reason: What is wrong with it, without the name.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason

    def __reduce__(self) -> tuple[type["UnreadableImageError"], tuple[str, str]]:
        return type(self), (self.name, self.reason)  # or it would not come back from another process


@dataclass(frozen=True, eq=False)
class Image:
    """A decoded image.

    Attributes:
        pixels: uint8, [H, W, 3] RGB, or [H, W] where the file is grey.
        mode: Pillow's name of the pixel layout in the file: "1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", ...
        bit_depth: Bits a channel in the file, 8 (also for fewer) or 16 (also for 12).
    """

    pixels: NDArray[np.uint8]
    mode: str
    bit_depth: int

    @property
    def height(self) -> int:
        """Height in px, after the EXIF orientation."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Width in px, after the EXIF orientation."""
        return int(self.pixels.shape[1])

    @property
    def grey(self) -> NDArray[np.uint8]:
        """Grey levels [H, W], luma of ITU-R 601 where the file is in colour."""
        if self.pixels.ndim == 2:
            return self.pixels
        return np.asarray(Pillow.fromarray(self.pixels).convert("L"))


def decode(source: Path | bytes, decoding: Decoding = _DEFAULT, *, name: str = "", grey: bool = False) -> Image:
    """Decode a JPEG, PNG, BMP, TIFF or WebP image, known by its content and not by its suffix.

    EXIF orientation is applied, alpha is composited over black, palettes and CMYK become RGB. 16-bit values are scaled
    by the white level, the same for every image. A TIFF, PNG or WebP of several frames is refused, because which of
    them shows the part is not ours to guess; a JPEG with embedded previews gives its primary image, as every viewer
    does.

    Args:
        source: The file, or its bytes.
        decoding: `max_megapixels`: a larger image is refused from its header, before memory is used for it;
            `white_level`: the 16-bit value shown as white (255), 65535, or 4095 for a 12-bit camera.
        name: What the file is called in messages; the path where nothing is given.
        grey: Only grey levels are wanted: `pixels` are [H, W] and may be read-only, which saves half of the time.

    Raises:
        UnreadableImageError: Naming the file and why it is refused.
    """
    name = name or (str(source) if isinstance(source, Path) else "image")
    with _refusing(name, decoding):
        return _decode(source, decoding, name, grey)


def read_size(file: Path, decoding: Decoding = _DEFAULT) -> tuple[int, int]:
    """Height and width in px of an image as `decode` would give it, from its header alone.

    Raises:
        UnreadableImageError: The header already says that `decode` would refuse the file.
    """
    with _refusing(str(file), decoding):
        _check_header(file, decoding.max_megapixels, str(file))
        with _opened(file, decoding.max_megapixels) as image:
            _check_size(image.width, image.height, decoding.max_megapixels, str(file))
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
            if image.format != "TIFF" and _TURNS.get(orientation, (False,))[0]:  # of a TIFF Pillow gives upright sizes
                return image.width, image.height
            return image.height, image.width


@contextmanager
def _refusing(name: str, decoding: Decoding) -> Iterator[None]:
    """Whatever a decoder raises is an `UnreadableImageError`."""
    try:
        yield
    except UnreadableImageError:
        raise
    except UnidentifiedImageError as error:
        raise UnreadableImageError(name, "not a JPEG, PNG, BMP, TIFF or WebP image") from error
    except Pillow.DecompressionBombError as error:
        raise UnreadableImageError(
            name, f"claims too many pixels; at most {decoding.max_megapixels:g} megapixels"
        ) from error
    except FileNotFoundError as error:
        raise UnreadableImageError(name, "not found") from error
    except PermissionError as error:
        raise UnreadableImageError(name, "no permission to read it") from error
    except Exception as error:  # decoders raise errors of every kind on damaged bytes
        raise UnreadableImageError(name, f"damaged or not supported ({_one_line(error)})") from error


def _decode(source: Path | bytes, decoding: Decoding, name: str, grey: bool) -> Image:
    max_megapixels, white_level = decoding.max_megapixels, decoding.white_level
    _check_header(source, max_megapixels, name)
    with _opened(source, max_megapixels) as image:
        _check_size(image.width, image.height, max_megapixels, name)
        if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
            frames = getattr(image, "n_frames", 1)
            raise UnreadableImageError(name, f"holds {frames} frames; expected one: save each frame as its own file")
        mode = "I;16" if image.mode.startswith("I;16") else image.mode
        rawmode = _rawmode(image)
        if mode == "I;16":
            pixels = _read_grey_16(image, white_level, name)
        elif rawmode == "LA;16B":
            mode, pixels = "LA", _read_grey_alpha_16(image, white_level)
        elif _RAW_16_BIT.search(rawmode):
            with _opened(source, max_megapixels) as again:
                pixels = _read_colour_16(image, again, white_level, name)
        elif mode in _GREY | _COLOUR:
            if grey and image.format == "JPEG" and mode == "RGB":
                image.draft("L", image.size)  # the file's own luma, without working out the colours first
            image.load()
            pixels = _to_8_bit(image, mode in _GREY, grey)
        else:
            raise UnreadableImageError(name, f"holds {mode} pixels; expected 8 or 16 bit grey, RGB, RGBA or CMYK")
        depth = 16 if mode == "I;16" or _RAW_16_BIT.search(rawmode) else 8
        oriented = _oriented(pixels, image.getexif().get(ExifTags.Base.Orientation, 1))
    if grey:
        levels = oriented if oriented.ndim == 2 else np.asarray(Pillow.fromarray(oriented).convert("L"))
        return Image(np.ascontiguousarray(levels), mode, depth)
    return Image(np.require(oriented, requirements=["C", "W"]), mode, depth)


def _opened(source: Path | bytes, max_megapixels: float) -> ImageFile:
    # Pillow's own limit is one for the process: raise it to what the user allowed, never lower it.
    limit = Pillow.MAX_IMAGE_PIXELS
    if limit is not None and limit < max_megapixels * 1e6:
        Pillow.MAX_IMAGE_PIXELS = int(max_megapixels * 1e6)
    return Pillow.open(source if isinstance(source, Path) else io.BytesIO(source), formats=FORMATS)


def _check_header(source: Path | bytes, max_megapixels: float, name: str) -> None:
    """Refuse what must not reach a decoder: nothing at all, and WebP canvases, which Pillow allocates on opening."""
    if isinstance(source, Path):
        with source.open("rb") as stream:
            header = stream.read(30)
    else:
        header = source[:30]
    if not header:
        raise UnreadableImageError(name, "is empty (0 bytes)")
    if header[:4] == b"RIFF" and header[8:12] == b"WEBP" and len(header) == 30:
        kind, body = header[12:16], header[20:]
        if kind == b"VP8X":
            size = int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
        elif kind == b"VP8L":
            bits = int.from_bytes(body[1:5], "little")
            size = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        else:
            size = int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
        _check_size(*size, max_megapixels, name)


def _check_size(width: int, height: int, max_megapixels: float, name: str) -> None:
    if width < 1 or height < 1:
        raise UnreadableImageError(name, f"claims {height} x {width} px; expected at least 1 x 1")
    if width * height > max_megapixels * 1e6:
        raise UnreadableImageError(
            name, f"claims {height} x {width} px; at most {max_megapixels:g} megapixels (ingest.max_megapixels)"
        )


def _rawmode(image: ImageFile) -> str:
    """How the decoder will unpack the stored pixels, such as "RGB;16B"."""
    if not image.tile:
        return image.mode
    arguments = image.tile[0].args
    if isinstance(arguments, (tuple, list)):
        arguments = arguments[0] if arguments else image.mode
    return arguments if isinstance(arguments, str) else image.mode


def _read_grey_16(image: ImageFile, white_level: int, name: str) -> NDArray[np.uint8]:
    if image.format == "TIFF" and getattr(image, "tag_v2", {}).get(262) == 0:
        raise UnreadableImageError(name, "stores 16-bit grey with white as zero; save it with black as zero")
    key = image.info.get("transparency")
    values = np.asarray(image).astype(np.uint16)
    pixels = _scaled(values, white_level)
    if isinstance(key, int):
        pixels[values == key] = 0
    return pixels


def _read_grey_alpha_16(image: ImageFile, white_level: int) -> NDArray[np.uint8]:
    """16-bit grey with alpha, which Pillow would cut to 8 bits: its four bytes are read as the four of RGBA."""
    image.tile = [tile._replace(args="RGBA") for tile in image.tile]
    high, low, alpha, _ = np.moveaxis(np.asarray(image), -1, 0)
    return _over_black(_scaled(_joined(high, low), white_level), alpha)


def _read_colour_16(image: ImageFile, again: ImageFile, white_level: int, name: str) -> NDArray[np.uint8]:
    """16-bit colour, which Pillow cuts to the high bytes: read it twice, the second time for the low bytes."""
    if image.mode not in {"RGB", "RGBA", "CMYK"} or _rawmode(image).startswith("RGBa"):
        raise UnreadableImageError(name, "stores 16-bit pre-multiplied alpha; save it as RGB or RGBA")
    other = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
    swapped = _RAW_16_BIT.sub(lambda match: f";16{other[match[1]]}", _rawmode(image))
    again.tile = [
        tile._replace(args=swapped if isinstance(tile.args, str) else (swapped, *(tile.args or ())[1:]))
        for tile in again.tile
    ]
    key = image.info.get("transparency")
    values = _joined(np.asarray(image), np.asarray(again))
    pixels = _scaled(values, white_level)
    if image.mode == "CMYK":
        return np.asarray(Pillow.fromarray(pixels, "CMYK").convert("RGB"))
    if image.mode == "RGBA":
        return _over_black(pixels[..., :3], (values[..., 3] >> 8).astype(np.uint8))
    if isinstance(key, tuple):
        pixels[(values == np.array(key, np.uint16)).all(axis=-1)] = 0
    return pixels


def _joined(high: NDArray[np.uint8], low: NDArray[np.uint8]) -> NDArray[np.uint16]:
    return high.astype(np.uint16) * np.uint16(256) + low


def _scaled(values: NDArray[np.uint16], white_level: int) -> NDArray[np.uint8]:
    table = np.minimum(np.arange(65536, dtype=np.int64), white_level)
    return ((table * 255 + white_level // 2) // white_level).astype(np.uint8)[values]


def _to_8_bit(image: ImageFile, is_grey: bool, grey: bool) -> NDArray[np.uint8]:
    if image.has_transparency_data:
        rgba = np.asarray(image.convert("RGBA"))
        return _over_black(rgba[..., 0] if is_grey else rgba[..., :3], rgba[..., 3])
    mode = "L" if is_grey or image.mode == "L" else "RGB"
    plain = image if image.mode == mode else image.convert(mode)  # to convert is to copy
    if grey:
        return np.asarray(plain.convert("L") if plain.mode != "L" else plain)
    return _copied(plain)


def _copied(image: Pillow.Image) -> NDArray[np.uint8]:
    """The pixels as an array of its own, strip by strip: Pillow hands out a picture as a second copy."""
    pixels = np.empty((image.height, image.width, *(() if image.mode == "L" else (3,))), np.uint8)
    rows = max(1, _STRIP // image.width)
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        pixels[top:bottom] = np.asarray(image.crop((0, top, image.width, bottom)))
    return pixels


def _over_black(pixels: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    weight = alpha.astype(np.uint16).reshape(alpha.shape + (1,) * (pixels.ndim - 2))
    return ((pixels * weight + 127) // 255).astype(np.uint8)


# EXIF orientation -> transpose first?, flip rows?, flip columns?
_TURNS = {
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


def _oriented(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Turn pixels [H, W, ...] upright by the EXIF orientation; 1 and values that EXIF does not know mean as stored."""
    transpose, flip_rows, flip_columns = _TURNS.get(orientation, (False, False, False))
    turned = pixels.swapaxes(0, 1) if transpose else pixels
    return turned[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
