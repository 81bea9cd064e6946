"""Every format, depth and mode that a camera writes, and every kind of file that must be refused by name."""

import contextlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageOps

from morphad.base.errors import BadInputError
from morphad.data.images import Image, UnreadableImageError, decode, read_size
from morphad.settings import Decoding

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (7, 5), np.uint8)
RGB = RNG.integers(0, 256, (7, 5, 3), np.uint8)
RGB16 = RNG.integers(0, 65536, (7, 5, 3), np.uint16)


def encoded(picture: Pillow.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def png(pixels: NDArray[np.uint16], colour: int, size: tuple[int, int] | None = None, extra: bytes = b"") -> bytes:
    """A 16-bit PNG by hand, which Pillow does not write."""
    height, width = size or pixels.shape[:2]

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    transparency = chunk(b"tRNS", extra) if extra else b""
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + transparency
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def tiff(pixels: NDArray[np.uint16], order: str = "<", photometric: int = 2, deflate: bool = False) -> bytes:
    """A 16-bit TIFF of one strip by hand, which Pillow does not write in colour."""
    height, width = pixels.shape[:2]
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    body = pixels.astype(f"{order}u2").tobytes()
    body = zlib.compress(body) if deflate else body
    entries = [
        (256, 4, [width]), (257, 4, [height]), (258, 3, [16] * channels), (259, 3, [8 if deflate else 1]),
        (262, 3, [photometric]), (273, 4, [8]), (277, 3, [channels]), (278, 4, [height]), (279, 4, [len(body)]),
    ]  # fmt: skip
    if photometric == 2 and channels == 4:
        entries.append((338, 3, [2]))
    directory = 8 + len(body) + len(body) % 2
    spill_at, spill, packed = directory + 2 + 12 * len(entries) + 4, b"", b""
    for tag, kind, values in entries:
        data = struct.pack(f"{order}{len(values)}{'H' if kind == 3 else 'I'}", *values)
        if len(data) > 4:
            place, spill = struct.pack(f"{order}I", spill_at + len(spill)), spill + data
        else:
            place = data.ljust(4, b"\0")
        packed += struct.pack(f"{order}HHI", tag, kind, len(values)) + place
    mark = b"II*\0" if order == "<" else b"MM\0*"
    head = mark + struct.pack(f"{order}I", directory) + body + b"\0" * (len(body) % 2)
    return head + struct.pack(f"{order}H", len(entries)) + packed + b"\0" * 4 + spill


def scaled(values: NDArray[np.uint16], white: int = 65535) -> NDArray[np.uint8]:
    return np.floor(np.minimum(values, white).astype(float) * 255 / white + 0.5).astype(np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_lossless_8_bit_comes_back_exactly(kind: str) -> None:
    assert np.array_equal(decode(encoded(Pillow.fromarray(GREY), kind)).pixels, GREY)
    image = decode(encoded(Pillow.fromarray(RGB), kind))
    assert np.array_equal(image.pixels, RGB)
    assert (image.height, image.width, image.mode, image.bit_depth) == (7, 5, "RGB", 8)


def test_webp_and_jpeg() -> None:
    assert np.array_equal(decode(encoded(Pillow.fromarray(RGB), "WEBP", lossless=True)).pixels, RGB)
    assert decode(encoded(Pillow.fromarray(RGB), "WEBP")).pixels.shape == (7, 5, 3)
    assert decode(encoded(Pillow.fromarray(RGB), "JPEG")).pixels.shape == (7, 5, 3)
    assert decode(encoded(Pillow.fromarray(GREY), "JPEG")).pixels.shape == (7, 5)


def test_format_is_known_by_content_not_by_suffix(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(encoded(Pillow.fromarray(GREY), "PNG"))
    assert np.array_equal(decode(path).pixels, GREY)


def test_one_bit_becomes_black_and_white() -> None:
    bits = GREY > 128
    image = decode(encoded(Pillow.fromarray(bits), "PNG"))
    assert (image.mode, image.bit_depth) == ("1", 8)
    assert np.array_equal(image.pixels, bits * np.uint8(255))


@pytest.mark.parametrize("white", [65535, 4095])
def test_16_bit_grey_is_scaled_by_the_white_level(white: int) -> None:
    values = RGB16[..., 0]
    for source in (png(values, 0), tiff(values, "<", 1), tiff(values, ">", 1), tiff(values, "<", 1, deflate=True)):
        image = decode(source, Decoding(white_level=white))
        assert (image.mode, image.bit_depth) == ("I;16", 16)
        assert np.array_equal(image.pixels, scaled(values, white))


@pytest.mark.parametrize("white", [65535, 4095])
def test_16_bit_rgb_keeps_its_low_bits(white: int) -> None:
    sources = [png(RGB16, 2), tiff(RGB16, "<"), tiff(RGB16, ">"), tiff(RGB16, "<", deflate=True)]
    sources.append(tiff(RGB16, ">", deflate=True))
    for source in sources:
        image = decode(source, Decoding(white_level=white))
        assert (image.mode, image.bit_depth) == ("RGB", 16)
        assert np.array_equal(image.pixels, scaled(RGB16, white))


def test_16_bit_alpha_is_composited_over_black() -> None:
    alpha = np.where(GREY > 128, 65535, 0).astype(np.uint16)
    rgba = np.dstack([RGB16, alpha])
    expected = scaled(RGB16) * (alpha > 0)[..., None]
    for source in (png(rgba, 6), tiff(rgba, "<"), tiff(rgba, ">")):
        image = decode(source)
        assert (image.mode, image.bit_depth) == ("RGBA", 16)
        assert np.array_equal(image.pixels, expected)
    image = decode(png(np.dstack([RGB16[..., 0], alpha]), 4), Decoding(white_level=4095))
    assert (image.mode, image.bit_depth) == ("LA", 16)
    assert np.array_equal(image.pixels, scaled(RGB16[..., 0], 4095) * (alpha > 0))


def test_16_bit_transparent_key_is_black() -> None:
    values = RGB16[..., 0]
    key = int(values[0, 0])
    assert decode(png(values, 0, extra=struct.pack(">H", key))).pixels[0, 0] == 0
    triple = struct.pack(">HHH", *(int(v) for v in RGB16[2, 3]))
    assert decode(png(RGB16, 2, extra=triple)).pixels[2, 3].tolist() == [0, 0, 0]


def test_16_bit_cmyk_tiff() -> None:
    ink = np.dstack([RGB16, RGB16[..., 0] // 4])
    expected = np.asarray(Pillow.fromarray(scaled(ink), "CMYK").convert("RGB"))
    image = decode(tiff(ink, "<", photometric=5))
    assert (image.mode, image.bit_depth) == ("CMYK", 16)
    assert np.array_equal(image.pixels, expected)


def test_16_bit_white_is_zero_is_refused() -> None:
    with pytest.raises(UnreadableImageError, match="white as zero"):
        decode(tiff(RGB16[..., 0], "<", 0), name="x.tif")


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_8_bit_alpha_is_composited_over_black(kind: str) -> None:
    alpha = RNG.integers(0, 256, (7, 5), np.uint8)
    expected = np.floor(RGB * (alpha / 255.0)[..., None] + 0.5).astype(np.uint8)
    image = decode(encoded(Pillow.fromarray(np.dstack([RGB, alpha])), kind))
    assert image.mode == "RGBA"
    assert np.array_equal(image.pixels, expected)
    grey = decode(encoded(Pillow.fromarray(np.dstack([GREY, alpha]), "LA"), kind))
    assert grey.mode == "LA"
    assert np.array_equal(grey.pixels, np.floor(GREY * (alpha / 255.0) + 0.5).astype(np.uint8))


def test_palette_with_and_without_transparency() -> None:
    picture = Pillow.fromarray(RGB).quantize(8)
    expected = np.asarray(picture.convert("RGB"))
    image = decode(encoded(picture, "PNG"))
    assert image.mode == "P"
    assert np.array_equal(image.pixels, expected)
    clear = np.asarray(picture) == 3
    assert np.array_equal(
        decode(encoded(picture, "PNG", transparency=3)).pixels, np.where(clear[..., None], np.uint8(0), expected)
    )


def test_cmyk_becomes_rgb() -> None:
    picture = Pillow.fromarray(RGB).convert("CMYK")
    image = decode(encoded(picture, "TIFF"))
    assert image.mode == "CMYK"
    assert np.array_equal(image.pixels, np.asarray(picture.convert("RGB")))
    assert decode(encoded(picture, "JPEG")).pixels.shape == (7, 5, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    exif = Pillow.Exif()
    exif[274] = orientation
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100} if kind == "JPEG" else {}
    blob = encoded(Pillow.fromarray(RGB), kind, exif=exif, **options)
    with Pillow.open(io.BytesIO(blob)) as plain:
        expected = np.asarray(ImageOps.exif_transpose(plain).convert("RGB"))
    assert np.array_equal(decode(blob).pixels, expected)


def test_grey_of_a_colour_image_is_its_luma() -> None:
    assert np.array_equal(
        decode(encoded(Pillow.fromarray(RGB), "PNG")).grey, np.asarray(Pillow.fromarray(RGB).convert("L"))
    )


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "WEBP"])
def test_truncated_files_are_refused_by_name(kind: str, tmp_path: Path) -> None:
    noise = Pillow.fromarray(RNG.integers(0, 256, (64, 64, 3), np.uint8))
    blob = encoded(noise, kind)
    for share in (0.02, 0.3, 0.6, 0.9):
        path = tmp_path / f"cut-{share}.img"
        path.write_bytes(blob[: max(1, int(len(blob) * share))])
        with pytest.raises(UnreadableImageError, match=f"cut-{share}"):
            decode(path)


@pytest.mark.filterwarnings("ignore")
def test_damaged_bytes_never_escape_as_another_error() -> None:
    for kind in ("JPEG", "PNG", "BMP", "TIFF", "WEBP"):
        blob = bytearray(encoded(Pillow.fromarray(RGB), kind))
        for _ in range(60):
            damaged = bytearray(blob)
            for place in RNG.integers(0, len(blob), 4):
                damaged[place] = RNG.integers(0, 256)
            with contextlib.suppress(UnreadableImageError):
                assert isinstance(decode(bytes(damaged), Decoding(max_megapixels=1)), Image)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "0 bytes"), (b"hello, I am a text file, not a picture", "not a JPEG"), (b"\x89PNG\r\n\x1a\n", "")],
)
def test_what_is_no_image_is_refused_by_name(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "thing.png"
    path.write_bytes(content)
    with pytest.raises(BadInputError, match=rf"thing\.png.*{reason}"):
        decode(path)


def test_formats_outside_the_list_are_refused() -> None:
    with pytest.raises(UnreadableImageError, match="not a JPEG, PNG"):
        decode(encoded(Pillow.fromarray(GREY), "GIF"), name="a.gif")
    with pytest.raises(UnreadableImageError, match="F pixels"):
        decode(encoded(Pillow.fromarray(GREY.astype(np.float32)), "TIFF"), name="a.tif")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImageError, match="not found"):
        decode(tmp_path / "none.png")
    with pytest.raises(UnreadableImageError):
        decode(tmp_path)


def bombs() -> list[bytes]:
    exif = Pillow.Exif()
    exif[274] = 1
    webp = bytearray(encoded(Pillow.fromarray(RGB), "WEBP", lossless=True, exif=exif))
    assert webp[12:16] == b"VP8X"
    webp[24:30] = (16000 - 1).to_bytes(3, "little") + (16000 - 1).to_bytes(3, "little")
    bitmap = bytearray(encoded(Pillow.fromarray(RGB), "BMP"))
    bitmap[18:26] = struct.pack("<ii", 50000, 50000)
    return [png(RGB16, 2, size=(50000, 50000)), bytes(webp), bytes(bitmap)]


@pytest.mark.parametrize("bomb", bombs(), ids=["png", "webp", "bmp"])
def test_bombs_are_refused_before_memory_is_taken(bomb: bytes) -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 500_000_000, hard))
    try:
        with pytest.raises(UnreadableImageError, match=r"bomb\.png: claims"):
            decode(bomb, name="bomb.png")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def test_the_size_limit_is_the_users() -> None:
    blob = encoded(Pillow.new("L", (1200, 1000)), "PNG")
    with pytest.raises(UnreadableImageError, match=r"1000 x 1200 px; at most 1 megapixels"):
        decode(blob, Decoding(max_megapixels=1.0))
    assert decode(blob, Decoding(max_megapixels=1.2)).width == 1200


def test_several_frames_are_refused() -> None:
    page = Pillow.fromarray(GREY)
    for kind in ("TIFF", "PNG", "WEBP"):
        blob = encoded(page, kind, save_all=True, append_images=[Pillow.fromarray(255 - GREY)])
        with pytest.raises(UnreadableImageError, match=r"stack\.tif: holds 2 frames"):
            decode(blob, name="stack.tif")


def test_multi_picture_jpeg_gives_its_primary_image() -> None:
    blob = encoded(Pillow.fromarray(GREY), "MPO", save_all=True, append_images=[Pillow.fromarray(255 - GREY)])
    assert np.abs(decode(blob).pixels.astype(int) - GREY).mean() < 30


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "WEBP", "JPEG"])
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_grey_levels_alone_are_those_of_the_whole_image(kind: str, mode: str, orientation: int) -> None:
    if (kind, mode) in {("JPEG", "P"), ("JPEG", "RGBA"), ("PNG", "CMYK"), ("BMP", "CMYK"), ("WEBP", "CMYK")}:
        pytest.skip(f"no {kind} holds {mode}")
    exif = Pillow.Exif()
    exif[274] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    blob = encoded(Pillow.fromarray(RGB).convert(mode), kind, exif=exif, **options)
    whole, grey = decode(blob), decode(blob, grey=True)
    assert (grey.mode, grey.bit_depth, grey.pixels.shape) == (whole.mode, whole.bit_depth, whole.grey.shape)
    difference = np.abs(grey.pixels.astype(int) - whole.grey)
    # A colour JPEG's own luma, before colours are cut to what a screen can show.
    assert difference.max() == 0 or (kind == "JPEG" and difference.mean() < 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_truncated_files_are_refused_where_only_grey_is_wanted(kind: str) -> None:
    blob = encoded(Pillow.fromarray(RNG.integers(0, 256, (64, 64, 3), np.uint8)), kind)
    for share in (0.3, 0.6, 0.9):
        with pytest.raises(UnreadableImageError):
            decode(blob[: int(len(blob) * share)], grey=True)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_the_size_in_the_header_is_that_of_the_decoded_image(tmp_path: Path, kind: str, orientation: int) -> None:
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    file = tmp_path / "x"
    file.write_bytes(encoded(Pillow.fromarray(RGB), kind, exif=exif))
    assert read_size(file) == decode(file).pixels.shape[:2]


def test_a_header_that_cannot_be_read_is_refused_as_its_file_is(tmp_path: Path) -> None:
    file = tmp_path / "x.png"
    file.write_bytes(b"no image")
    with pytest.raises(UnreadableImageError, match="not a JPEG, PNG, BMP, TIFF or WebP image"):
        read_size(file)
    file.write_bytes(encoded(Pillow.fromarray(RGB), "PNG"))
    with pytest.raises(UnreadableImageError, match="claims 7 x 5 px; at most 1e-06 megapixels"):
        read_size(file, Decoding(max_megapixels=1e-6))
    with pytest.raises(UnreadableImageError, match="not found"):
        read_size(tmp_path / "none.png")
