"""Pictures: decoded to the last frame by the one decoder that their announced type names.

Runs in the child. Sizes and thumbnails are upright, as cameras mean it; a thumbnail holds pixels and nothing else of
the file, no place and no camera.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Mapping
from typing import Any, Final

from PIL import Image, ImageOps

from adapters.decoding.findings import THUMBNAIL_PIXELS, Found, Rejection

DECODERS: Final = {
    "image/png": "PNG",
    "image/jpeg": "JPEG",
    "image/gif": "GIF",
    "image/webp": "WEBP",
    "image/avif": "AVIF",
    "image/tiff": "TIFF",
}
FRAME_PIXELS: Final = 6
"""All frames of a picture together have at most so many times the pixels that one picture may have."""

_ORIENTATION: Final = 0x0112  # EXIF 2.32 §4.6.5
_SIDEWAYS: Final = frozenset({5, 6, 7, 8})
_QUALITY: Final = 80
_BROKEN: Final = (OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, OverflowError)
"""What decoders raise for files that they cannot read."""


def look(order: Mapping[str, Any]) -> Found:
    """The size of a picture, upright, and its thumbnail; raises Rejection."""
    Image.MAX_IMAGE_PIXELS = order["maxPixels"]
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    decoder = DECODERS[order["contentType"]]
    try:
        with Image.open(order["path"], formats=[decoder]) as image:
            is_sideways = image.getexif().get(_ORIENTATION) in _SIDEWAYS
            width, height = image.size[::-1] if is_sideways else image.size
            _decode(image, order)
            image.seek(0)
            return Found("IMAGE", width=width, height=height, thumbnail=thumbnail(image))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise Rejection(f"A picture has at most {order['maxPixels']:,} pixels.") from None
    except (*_BROKEN, struct.error):
        raise Rejection(f"The file is no {decoder} picture, or a broken one.") from None


def thumbnail(image: Image.Image) -> bytes:
    """A small WebP of a picture, upright, without what else the file holds."""
    image.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    upright = ImageOps.exif_transpose(image)
    has_alpha = upright.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in upright.info
    plain = upright.convert("RGBA" if has_alpha else "RGB")
    # What an image carries in `info` can end up in the file.
    plain.info.clear()
    written = io.BytesIO()
    plain.save(written, "WEBP", quality=_QUALITY, exif=b"", icc_profile=b"", xmp=b"")
    return written.getvalue()


def _decode(image: Image.Image, order: Mapping[str, Any]) -> None:
    """Decode all frames: a file that is cut off shows it only at its end."""
    frames = getattr(image, "n_frames", 1)
    if frames > order["maxFrames"]:
        raise Rejection(f"A picture has at most {order['maxFrames']:,} frames; this one has {frames:,}.")
    left = order["maxPixels"] * FRAME_PIXELS
    for number in range(frames):
        image.seek(number)
        left -= image.width * image.height
        if left < 0:
            raise Rejection("The frames of the picture have too many pixels in all.")
        image.load()
