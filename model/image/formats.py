"""Image formats by their first bytes: which are read, and what to do about the others."""

from __future__ import annotations

import importlib.util

from PIL import features

DEFAULT_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF")
ALL_FORMATS = (*DEFAULT_FORMATS, "GIF", "BMP", "TIFF", "HEIC")

_PREFIXES = (  # the first that matches; Pillow's own rules for the formats that it reads (a test compares them)
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0\x10\0\0\0CR", "Canon camera raw"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II\0*", "TIFF"),  # byte orders of a header that some writers confuse
    (b"MM*\0", "TIFF"),
    (b"II+\0", "TIFF"),  # BigTIFF
    (b"MM\0+", "big-endian BigTIFF"),  # Pillow accepts its header and then misreads it
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"8BPS", "Photoshop"),
    (b"gimp xcf", "GIMP"),
    (b"FUJIFILMCCD-RAW", "Fujifilm camera raw"),
    (b"qoif", "QOI"),
    (b"\x76\x2f\x31\x01", "OpenEXR"),
    (b"DDS ", "DDS"),
    (b"\0\0\x01\0", "ICO"),
    (b"%PDF-", "PDF"),
    (b"%!PS", "PostScript file"),
    (b"PK\x03\x04", "ZIP archive"),
    (b"\x1f\x8b", "gzip file"),
    (b"version https://git-lfs", "Git LFS pointer"),
)
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_AVIF_BRANDS = {b"avif", b"avis"}
_NOT_IMAGES = {"PDF", "PostScript file", "ZIP archive", "gzip file", "Git LFS pointer", "HTML page", "video"}
_REMEDIES = {
    "Git LFS pointer": "it stands for a file that was not downloaded: run `git lfs pull`",
    "HTML page": "a download probably failed: open the address in a browser",
    "PDF": "convert its page to PNG",
    "ZIP archive": "unpack it",
    "gzip file": "unpack it",
    "video": "extract a frame as JPEG",
}


def sniff_format(data: bytes) -> str:
    """Return the name of a format by the first bytes, whether it is read or not; "" for bytes of no known format."""
    for prefix, name in _PREFIXES:
        if data.startswith(prefix):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        return _iso_media(data)
    if data[:2] == b"BM" and len(data) > 26:
        return "BMP"
    start = data[:256].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "HTML page"
    if start.startswith(b"<svg") or (start.startswith(b"<?xml") and b"<svg" in data[:4096].lower()):
        return "SVG"
    return ""


def missing_support(name: str) -> str:
    """Return why a format of ALL_FORMATS cannot be read by this installation, "" if it can."""
    if name == "AVIF" and not features.check("avif"):
        return "this build of Pillow does not read it: install Pillow's own wheel, or convert the image to JPEG"
    if name == "HEIC" and importlib.util.find_spec("pillow_heif") is None:
        return "reading it needs the extra 'heic': run `pip install pillow-heif`, or convert the image to JPEG"
    return ""


def describe(name: str) -> str:
    """Return a format's name with an article: "a PDF", "a JPEG XL image"."""
    noun = name if name in _NOT_IMAGES else f"{name} image"
    return f"{'an' if noun.startswith(('AVIF', 'HTML', 'ICO', 'Open', 'SVG')) else 'a'} {noun}"


def unsupported_detail(data: bytes, name: str, accepted: tuple[str, ...]) -> str:
    """Return why bytes of a format are not accepted, and what to send instead."""
    usable = ", ".join(format for format in accepted if not missing_support(format))
    if not name:
        return f"the bytes are not of a known image format (they start with {data[:8]!r}); send one of {usable}"
    what = f"the bytes are {describe(name)}"
    if name in accepted:
        return f"{what}; {missing_support(name)}"
    if name in ALL_FORMATS:
        return f"{what}, a format that is not enabled here; send one of {usable}"
    return f"{what}, which is not read; {_REMEDIES.get(name, 'convert it to JPEG or PNG')}"


def _iso_media(data: bytes) -> str:
    """Return the format of an ISO base media file by its brands: AVIF and HEIC share container brands (ISO/IEC 23008-12)."""
    end = max(16, min(int.from_bytes(data[:4], "big"), 256))
    brands = [data[start : start + 4] for start in range(8, end, 4) if start != 12]  # at 12 is a version
    for brand in brands:
        if brand in _AVIF_BRANDS:
            return "AVIF"
        if brand in _HEIC_BRANDS:
            return "HEIC"
    if brands[0] == b"crx ":
        return "Canon camera raw"
    return "HEIC" if brands[0] in (b"mif1", b"msf1") else "video"
