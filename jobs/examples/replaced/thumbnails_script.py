"""The script that thumbnails.yaml and thumbnails.py stand in for. Usage: thumbnails_script.py ROOT OUT [--size 256]"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import logging
import os
import re
import signal
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from PIL import Image, ImageOps

LIMIT = 60
"""Seconds that one image may take."""
NAMES = re.compile(r".*\.[jp]\w*g")


def shrink(image: Path, thumbnail: Path, size: int) -> None:
    signal.signal(signal.SIGALRM, overdue)
    signal.alarm(LIMIT)
    try:
        fresh = Path(f"{thumbnail}.new")
        thumbnail.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(image) as opened:
            opened.draft("RGB", (size, size))
            small = ImageOps.exif_transpose(opened)
            small.thumbnail((size, size))
            small.save(fresh, "WEBP")
        fresh.replace(thumbnail)
    finally:
        signal.alarm(0)


def overdue(*_: object) -> None:
    raise TimeoutError(f"not done after {LIMIT} s")


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_fresh(image: Path, thumbnail: Path, size: int, known: dict[str, list[object]]) -> bool:
    return thumbnail.exists() and known.get(str(image)) == [size, digest(image), digest(thumbnail)]


def save(known: dict[str, list[object]], file: Path) -> None:
    fresh = Path(f"{file}.new")
    fresh.write_text(json.dumps(known))
    fresh.replace(file)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    return parser.parse_args()


def run(args: argparse.Namespace, memory: Path) -> int:
    known: dict[str, list[object]] = json.loads(memory.read_text()) if memory.exists() else {}
    images = sorted(path for path in args.root.rglob("*") if path.is_file() and NAMES.fullmatch(path.name))
    thumbnails = {image: args.out / f"{image.relative_to(args.root)}.webp" for image in images}
    todo = [image for image in images if not is_fresh(image, thumbnails[image], args.size, known)]
    logging.info("%d images, %d of them to do", len(images), len(todo))
    failed = 0
    with ProcessPoolExecutor(args.workers) as pool:
        futures = {pool.submit(shrink, image, thumbnails[image], args.size): image for image in todo}
        for future in as_completed(futures):
            image = futures[future]
            try:
                future.result()
            except BrokenProcessPool:
                logging.error("%s: a worker died, and the pool with it", image)
                return 1
            except Exception:
                logging.exception("%s: failed", image)
                failed += 1
            else:
                known[str(image)] = [args.size, digest(image), digest(thumbnails[image])]
                save(known, memory)
                logging.info("%s: done", image)
    return 1 if failed else 0


def main() -> int:
    args = arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    with (args.out / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logging.error("already running")
            return 75
        return run(args, args.out / ".known.json")


if __name__ == "__main__":
    sys.exit(main())
