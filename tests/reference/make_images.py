"""Writes pictures of every kind `rcnn_image` reads, and the RGB that Pillow makes of each.

Run with any Python that has Pillow and NumPy. The pictures go to crates/rcnn-image/tests/images, what is
expected of NAME to expected/NAME.png there; the lossless pictures exif-* share expected/exif.png.
"""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, ImageSequence

OUT = Path(__file__).parents[2] / "crates/rcnn-image/tests/images"
W, H = 23, 17


def ramps(channels, top=255):
    """A smooth picture with a different wave in each channel."""
    y, x = np.mgrid[0:H, 0:W]
    waves = [np.sin(x / (3 + c) + y / (7 - c) + c) for c in range(channels)]
    samples = np.rint((np.stack(waves, -1) + 1) / 2 * top)
    return samples.astype(np.uint16 if top > 255 else np.uint8)


def png(depth, kind, rows, *chunks):
    """A PNG of a kind that Pillow does not write."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    body = zlib.compress(b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows))
    header = struct.pack(">IIBBBBB", W, H, depth, kind, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", body), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def tiff16(samples, order):
    """An uncompressed 16-bit TIFF of samples (H, W, C) in byte order "<" or ">"."""
    channels = samples.shape[2]
    data = samples.astype(order + "u2").tobytes()
    tags = [(256, W), (257, H), (258, 16), (259, 1), (262, 2 if channels > 1 else 1), (273, 8),
            (277, channels), (278, H), (279, len(data))]
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8 + len(data))
    entries = b""
    for tag, value in tags:
        if tag == 258 and channels > 1:  # three depths do not fit the entry; they follow the directory
            entries += struct.pack(order + "HHII", tag, 3, channels, 8 + len(data) + 6 + 12 * len(tags))
        else:
            entries += struct.pack(order + "HHII", tag, 4, 1, value)
    return head + data + struct.pack(order + "H", len(tags)) + entries + bytes(4) + struct.pack(order + "3H", 16, 16, 16)


def tiff8(samples, bits=8, photometric=1, extra=None, planar=False):
    """An uncompressed TIFF of samples (H, W, C) of up to 8 bits, of a kind that Pillow does not write."""
    channels = samples.shape[2]
    data = samples.transpose(2, 0, 1).tobytes() if planar else samples.tobytes()
    if bits < 8:
        spread = (samples.reshape(H, W, 1) >> np.arange(bits)[::-1]) & 1
        data = np.packbits(spread.reshape(H, -1), axis=1).tobytes()
    planes = channels if planar else 1
    after = 8 + len(data)
    deep = b"".join(struct.pack("<H", bits) for _ in range(channels))
    strips = b"".join(struct.pack("<I", 8 + i * (len(data) // planes)) for i in range(planes))
    counts = struct.pack("<I", len(data) // planes) * planes
    tags = [(256, 4, 1, W), (257, 4, 1, H), (258, 3, channels, deep), (259, 3, 1, 1), (262, 3, 1, photometric),
            (273, 4, planes, strips), (277, 3, 1, channels), (278, 4, 1, H), (279, 4, planes, counts),
            (284, 3, 1, 2 if planar else 1)] + ([(338, 3, 1, extra)] if extra is not None else [])
    head, tail = struct.pack("<H", len(tags)), b""
    for tag, kind, count, value in tags:
        value = struct.pack("<H" if kind == 3 else "<I", value) if isinstance(value, int) else value
        if len(value) > 4:
            tail, value = tail + value, struct.pack("<I", after + 6 + 12 * len(tags) + len(tail))
        head += struct.pack("<HHI", tag, kind, count) + value.ljust(4, b"\0")
    return b"II*\0" + struct.pack("<I", after) + data + head + bytes(4) + tail


def jpeg_tiles(image, side=16):
    """A TIFF in YCbCr of whole JPEG files as tiles."""
    tiles = [saved(image.crop((x, y, x + side, y + side)), format="JPEG", quality=85)
             for y in range(0, H, side) for x in range(0, W, side)]
    data = b"".join(tiles)
    starts = np.cumsum([8] + [len(tile) for tile in tiles])[:-1]
    after = 8 + len(data)
    tags = [(256, W), (257, H), (258, 8), (259, 7), (262, 6), (277, 3), (284, 1), (322, side), (323, side)]
    depths = after + 2 + 12 * (len(tags) + 3) + 4
    lists = struct.pack("<3H", 8, 8, 8) + b"".join(struct.pack("<I", v) for v in [*starts, *map(len, tiles)])
    entries = [struct.pack("<HHII", tag, 3, 3, depths) if tag == 258 else struct.pack("<HHII", tag, 3, 1, value)
               for tag, value in tags]
    entries.append(struct.pack("<HHII", 324, 4, len(tiles), depths + 6))
    entries.append(struct.pack("<HHII", 325, 4, len(tiles), depths + 6 + 4 * len(tiles)))
    entries.append(struct.pack("<HHIHH", 530, 3, 2, 2, 2))
    return b"II*\0" + struct.pack("<I", after) + data + struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4) + lists


def gif(palette, left, top, width, height, indices, transparent=None):
    """A GIF whose first frame covers part of a 5 x 4 canvas; `palette` is local and has four colours."""
    bits = "".join(f"{code:03b}"[::-1] for index in indices for code in (4, index)) + "001" + "101"
    data = bytes(int(bits[i : i + 8].ljust(8, "0")[::-1], 2) for i in range(0, len(bits), 8))
    out = b"GIF89a" + struct.pack("<HHBBB", 5, 4, 0x80, 1, 0) + bytes([9, 9, 9, 99, 99, 99])
    if transparent is not None:
        out += b"\x21\xf9\x04\x01\0\0" + bytes([transparent]) + b"\0"
    out += b"\x2c" + struct.pack("<HHHHB", left, top, width, height, 0x81) + bytes(palette)
    return out + b"\x02" + bytes([len(data)]) + data + b"\0\x3b"


def jpeg_parts(data):
    """The start of a JPEG with its first segment, its other segments, and the pixels with the end."""
    parts, at = [], 2
    while data[at : at + 2] != b"\xff\xda":
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        parts.append(data[at:end])
        at = end
    return [data[:2] + parts[0], *parts[1:], data[at:]]


def jpeg_adobe(data, transform):
    """A JPEG with another colour transform in its Adobe segment."""
    at = data.index(b"Adobe") + 11
    return data[:at] + bytes([transform]) + data[at + 1 :]


def saved(image, **options):
    """The bytes Pillow writes for an image."""
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()


def kinds():
    """(name, bytes) of each picture; (name, bytes, expected array) where Pillow's own RGB is useless."""
    grey, grey_alpha, rgb, rgba = (Image.fromarray(ramps(c).squeeze()) for c in (1, 2, 3, 4))
    palette = rgb.quantize(16)
    colours = rgb.quantize(200)
    bits = grey.convert("1")
    cmyk = Image.fromarray(ramps(4), mode="CMYK")
    grey16, colour16 = ramps(1, 65535), ramps(3, 65535)

    yield "rgb.jpg", saved(rgb, format="JPEG", quality=90)
    yield "rgb444.jpg", saved(rgb, format="JPEG", quality=90, subsampling=0)
    yield "progressive.jpg", saved(rgb, format="JPEG", quality=90, progressive=True)
    yield "grey.jpg", saved(grey, format="JPEG", quality=90)
    yield "cmyk.jpg", saved(cmyk, format="JPEG", quality=90)
    yield "cmyk_progressive.jpg", saved(cmyk, format="JPEG", quality=60, progressive=True)
    yield "ycck.jpg", jpeg_adobe(saved(cmyk, format="JPEG", quality=80), transform=2)
    yield "rgb422.jpg", saved(rgb, format="JPEG", quality=70, subsampling="4:2:2")
    yield "rgb411.jpg", saved(rgb, format="JPEG", quality=80, subsampling="4:1:1")
    yield "untransformed.jpg", saved(rgb, format="JPEG", quality=80, keep_rgb=True)
    yield "grey_progressive.jpg", saved(grey, format="JPEG", quality=40, progressive=True)
    restarts = saved(rgb, format="JPEG", quality=50, restart_marker_blocks=2, optimize=True)
    yield "restarts.jpg", restarts
    # As from a broken transfer: what follows the next restart marker is whole again.
    at = restarts.index(b"\xff\xd0") - 20
    yield "damaged.jpg", restarts[:at] + b"\x55" * 8 + restarts[at + 8 :]
    scans = saved(rgb, format="JPEG", quality=75, progressive=True)
    yield "first_scans.jpg", scans[: scans.rindex(b"\xff\xda", 0, scans.rindex(b"\xff\xda"))] + b"\xff\xd9"
    # The frames of a webcam: the Huffman tables are the standard's and left out.
    plain = saved(rgb, format="JPEG", quality=75)
    yield "no_tables.jpg", b"".join(part for part in jpeg_parts(plain) if part[:2] != b"\xff\xc4")
    first, *rest = jpeg_parts(plain)
    yield "junk.jpg", b"".join([first, b"\0" * 7, *rest])
    xmp = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta tiff:Orientation=\"6\"/>"
    yield "xmp.jpg", b"".join([first, b"\xff\xe1" + struct.pack(">H", 2 + len(xmp)) + xmp, *rest])

    for number in (0, 9):  # none of the eight, and another in the XMP
        exif = Image.Exif()
        exif[0x0112] = number
        parts = jpeg_parts(saved(rgb, format="JPEG", quality=75, exif=exif))
        parts.insert(1, b"\xff\xe1" + struct.pack(">H", 2 + len(xmp)) + xmp)
        yield f"no_orientation{number}.jpg", b"".join(parts)

    yield "rgb.png", saved(rgb, format="PNG")
    yield "rgba.png", saved(rgba, format="PNG")
    yield "grey.png", saved(grey, format="PNG")
    yield "grey_alpha.png", saved(grey_alpha, format="PNG")
    yield "bits.png", saved(bits, format="PNG")
    yield "palette.png", saved(palette, format="PNG", bits=4)
    yield "palette_alpha.png", saved(palette, format="PNG", transparency=bytes(range(0, 256, 16)))
    yield "grey_key.png", saved(grey, format="PNG", transparency=128)
    yield "rgb16.png", png(16, 2, colour16)
    yield "rgba16.png", png(16, 6, ramps(4, 65535))
    yield "grey_alpha16.png", png(16, 4, ramps(2, 65535))
    high_byte = np.repeat(grey16 >> 8, 3, axis=2).astype(np.uint8)
    yield "grey16.png", png(16, 0, grey16), high_byte
    xmp = b"XML:com.adobe.xmp\0\0\0\0\0<x:xmpmeta tiff:Orientation=\"6\"/>"
    yield "xmp.png", png(16, 2, colour16, (b"iTXt", xmp))

    yield "lossless.webp", saved(rgba, format="WEBP", lossless=True, exact=True)
    yield "lossy.webp", saved(rgb, format="WEBP", quality=90)
    yield "lossy_alpha.webp", saved(rgba, format="WEBP", quality=30, method=6)
    yield "animated.webp", saved(rgb, format="WEBP", lossless=True, save_all=True, append_images=[rgb.rotate(180)])

    yield "rgb.bmp", saved(rgb, format="BMP")
    yield "rgba.bmp", saved(rgba, format="BMP")
    yield "bits.bmp", saved(bits, format="BMP")
    yield "palette.bmp", saved(palette, format="BMP")

    yield "rgb.tiff", saved(rgb, format="TIFF", compression="tiff_lzw")
    yield "rgba.tiff", saved(rgba, format="TIFF", compression="tiff_adobe_deflate")
    yield "big.tiff", saved(rgb, format="TIFF", big_tiff=True)
    yield "bits.tiff", saved(bits, format="TIFF", compression="group4")
    yield "palette.tiff", saved(colours, format="TIFF", compression="packbits")
    yield "cmyk.tiff", saved(cmyk, format="TIFF", compression="tiff_lzw")
    yield "rgb16.tiff", tiff16(colour16, "<")
    yield "rgb16_be.tiff", tiff16(colour16, ">")
    yield "grey16.tiff", tiff16(grey16, "<"), high_byte

    yield "grey_alpha.tiff", saved(grey_alpha, format="TIFF")
    yield "grey_extra.tiff", tiff8(ramps(2), extra=0)
    yield "palette_alpha.tiff", saved(colours.convert("PA"), format="TIFF", compression="tiff_lzw")
    yield "infrared.tiff", tiff8(ramps(4), photometric=2, extra=0)
    yield "planar.tiff", tiff8(ramps(3), photometric=2, planar=True)
    yield "grey4.tiff", tiff8(ramps(1, 15), bits=4)
    yield "grey2.tiff", tiff8(ramps(1, 3), bits=2)

    yield "jpeg.tiff", saved(rgb, format="TIFF", compression="jpeg", quality=80, strip_size=700)
    yield "jpeg_grey.tiff", saved(grey, format="TIFF", compression="jpeg", quality=80)
    yield "jpeg_ycbcr.tiff", saved(rgb.convert("YCbCr"), format="TIFF", compression="jpeg", quality=80)
    yield "jpeg_tiles.tiff", jpeg_tiles(rgb)

    yield "palette.gif", saved(palette, format="GIF")
    yield "animated.gif", saved(palette, format="GIF", save_all=True, append_images=[palette.rotate(180)])
    # Frames of parts of the picture over those before.
    moving = []
    for x in range(4):
        moving.append(palette.copy())
        moving[-1].paste(0, (2 + 3 * x, 4, 8 + 3 * x, 9))
    yield "moving.gif", saved(moving[0], format="GIF", save_all=True, append_images=moving[1:], duration=[40, 120, 0, 250])
    four = [10, 20, 30, 200, 0, 0, 0, 200, 0, 0, 0, 200]
    yield "small.gif", gif(four, 1, 1, 3, 2, [1, 2, 3, 0, 1, 2])
    yield "transparent.gif", gif(four, 1, 1, 3, 2, [1, 2, 3, 0, 1, 2], transparent=2)


def oriented():
    """(name, bytes) of one upright picture in each EXIF orientation, in each format that knows of them."""
    upright = Image.fromarray(np.kron(np.array([[[250, 0, 0], [0, 250, 0], [0, 0, 250]],
                                                [[250, 250, 0], [0, 250, 250], [250, 250, 250]]], np.uint8),
                                      np.ones((8, 8, 1), np.uint8)))
    undo = [None, Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180, Image.Transpose.FLIP_TOP_BOTTOM,
            Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_90, Image.Transpose.TRANSVERSE, Image.Transpose.ROTATE_270]
    for orientation, method in enumerate(undo, 1):
        stored = upright if method is None else upright.transpose(method)
        exif = Image.Exif()
        exif[0x0112] = orientation
        for extension, options in [("jpg", dict(format="JPEG", quality=95, subsampling=0)), ("png", dict(format="PNG")),
                                   ("webp", dict(format="WEBP", lossless=True)),
                                   ("tiff", dict(format="TIFF", compression="tiff_lzw"))]:
            data = saved(stored, exif=exif, **options)
            result = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")).astype(int)
            assert abs(result - np.asarray(upright)).max() <= 2
            if extension == "jpg":
                expect(f"exif-{orientation}.jpg", result.astype(np.uint8))
            yield f"exif-{orientation}.{extension}", data
    expect("exif", np.asarray(upright))


def expect(name, pixels):
    """Writes what is expected of a picture."""
    Image.fromarray(pixels).save(OUT / f"expected/{name}.png", optimize=True)


(OUT / "expected").mkdir(parents=True, exist_ok=True)
for name, data, *useful in kinds():
    (OUT / name).write_bytes(data)
    rgb = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    expect(name, useful[0] if useful else rgb)
for name, data in oriented():
    (OUT / name).write_bytes(data)
# Frames of animations, one below the other.
for name in ["animated.gif", "animated.webp", "moving.gif"]:
    frames = ImageSequence.Iterator(Image.open(OUT / name))
    expect(f"frames-{name}", np.concatenate([np.asarray(frame.convert("RGB")) for frame in frames]))
# Five bands are no picture, as Pillow says too.
(OUT / "bands.tiff").write_bytes(tiff8(ramps(5)))
# Float samples have no agreed white: an error is expected.
Image.fromarray(ramps(1).squeeze().astype(np.float32)).save(OUT / "float.tiff")
