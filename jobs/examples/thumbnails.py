"""Function of thumbnails.yaml: a small copy of an image."""

from __future__ import annotations

from pathlib import Path

try:
    from PIL import Image, ImageOps
except ImportError as error:
    raise ImportError("thumbnails need Pillow: pip install Pillow") from error


def shrink(image: str, thumbnail: str, size: int) -> list[int]:
    """Write an upright copy of at most `size` × `size` pixels, whole or not at all; its width and height."""
    path, fresh = Path(thumbnail), Path(f"{thumbnail}.new")
    path.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(image) as opened:
        opened.draft("RGB", (size, size))
        small = ImageOps.exif_transpose(opened)
        small.thumbnail((size, size))
        small.save(fresh, "WEBP")
    fresh.replace(path)
    return list(small.size)
