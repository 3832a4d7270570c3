"""What files of a site are, by the end of their name: a table of ours, because a machine's own may say otherwise.

Browsers are told not to guess (`nosniff`), so a script or style under a wrong type would not load. Sources: the IANA
media types registry, RFC 9239 for JavaScript.
"""

from __future__ import annotations

from typing import Final

DEFAULT: Final = "application/octet-stream"

_TYPES: Final = {
    "html": "text/html",
    "htm": "text/html",
    "xhtml": "application/xhtml+xml",
    "css": "text/css",
    "js": "text/javascript",
    "mjs": "text/javascript",
    "cjs": "text/javascript",
    "json": "application/json",
    "map": "application/json",
    "jsonld": "application/ld+json",
    "geojson": "application/geo+json",
    "webmanifest": "application/manifest+json",
    "xml": "application/xml",
    "rss": "application/rss+xml",
    "atom": "application/atom+xml",
    "xsl": "application/xml",
    "txt": "text/plain",
    "text": "text/plain",
    "log": "text/plain",
    "md": "text/markdown",
    "csv": "text/csv",
    "tsv": "text/tab-separated-values",
    "ics": "text/calendar",
    "vcf": "text/vcard",
    "vtt": "text/vtt",
    "yaml": "application/yaml",
    "yml": "application/yaml",
    "svg": "image/svg+xml",
    "png": "image/png",
    "apng": "image/apng",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "gif": "image/gif",
    "webp": "image/webp",
    "avif": "image/avif",
    "jxl": "image/jxl",
    "bmp": "image/bmp",
    "tif": "image/tiff",
    "tiff": "image/tiff",
    "ico": "image/vnd.microsoft.icon",
    "woff": "font/woff",
    "woff2": "font/woff2",
    "ttf": "font/ttf",
    "otf": "font/otf",
    "eot": "application/vnd.ms-fontobject",
    "mp3": "audio/mpeg",
    "m4a": "audio/mp4",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "ogg": "audio/ogg",
    "oga": "audio/ogg",
    "opus": "audio/ogg",
    "wav": "audio/wav",
    "weba": "audio/webm",
    "mp4": "video/mp4",
    "m4v": "video/mp4",
    "webm": "video/webm",
    "ogv": "video/ogg",
    "mov": "video/quicktime",
    "m3u8": "application/vnd.apple.mpegurl",
    "ts": "video/mp2t",
    "pdf": "application/pdf",
    "epub": "application/epub+zip",
    "zip": "application/zip",
    "gz": "application/gzip",
    "tgz": "application/gzip",
    "br": DEFAULT,
    "7z": "application/x-7z-compressed",
    "tar": "application/x-tar",
    "wasm": "application/wasm",
    "glb": "model/gltf-binary",
    "gltf": "model/gltf+json",
    "doc": "application/msword",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
}
# Files without an ending that the web expects under a name of their own.
_NAMES: Final = {
    ".well-known/apple-app-site-association": "application/json",
    "apple-app-site-association": "application/json",
    ".well-known/security.txt": "text/plain",
    "CNAME": "text/plain",
    "LICENSE": "text/plain",
}
_WITH_CHARSET: Final = frozenset({"application/xhtml+xml", "application/xml", "image/svg+xml", "application/yaml"})
_COMPRESSIBLE: Final = frozenset(
    {
        *("application/wasm", "font/ttf", "font/otf", "application/vnd.ms-fontobject", "image/bmp"),
        *("image/vnd.microsoft.icon", "application/yaml", "application/x-tar", "model/gltf-binary"),
        *("application/json", "application/xml", "application/vnd.apple.mpegurl"),
    }
)


def content_type_of(path: str) -> str:
    """The media type of a file, with `charset=utf-8` where it is text."""
    name = path.rpartition("/")[2]
    _, dot, extension = name.rpartition(".")
    media_type = _NAMES.get(path) or (_TYPES.get(extension.lower(), DEFAULT) if dot else DEFAULT)
    if media_type.startswith("text/") or media_type in _WITH_CHARSET:
        return f"{media_type}; charset=utf-8"
    return media_type


def is_compressible(content_type: str) -> bool:
    """Whether files of this type shrink: text, structured data and what is stored as it is in memory."""
    media_type = content_type.partition(";")[0]
    return media_type.startswith("text/") or media_type.endswith(("+xml", "+json")) or media_type in _COMPRESSIBLE
