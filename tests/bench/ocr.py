"""How well and how fast documents are read: errors per way of scanning, and pages per minute on two cores.

The baseline is what one would write without thinking: `tesserocr` called on the same pictures with its defaults, and
with the mode that reading uses. Errors are of characters (CER); two columns count in whichever order fits better.
"""

from __future__ import annotations

import io
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.harness import paper
from tests.harness.paper import PAPERS, VARIANTS, Scan
from tests.harness.readers import ROOT, Readers, has_spanish

PAGES = 12
PLAIN = """
import sys, tesserocr
from PIL import Image
mode, languages, data, *files = sys.argv[1:]
with tesserocr.PyTessBaseAPI(path=data, lang=languages, psm=int(mode)) as engine:
    for file in files:
        with Image.open(file) as picture:
            for number in range(getattr(picture, "n_frames", 1)):
                picture.seek(number)
                engine.SetImage(picture.copy())
                print(engine.GetUTF8Text(), end="\\f")
"""


async def main() -> None:
    """Print both tables."""
    languages = ["spa", "eng"] if has_spanish() else ["eng"]
    print(f"languages {'+'.join(languages)}; CER in % of characters, one page each")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        readers = Readers(folder, languages)
        _errors(readers, folder)
        _speed(readers, folder)


def _errors(readers: Readers, folder: Path) -> None:
    print(f"{'':26}{'reader':>8}{'mode 3':>8}{'mode 4':>8}")
    for sheet in PAPERS:
        [*pages] = readers.read(sheet().pdf, is_pdf=True).pages
        print(f"{sheet().name:14}{'text layer':12}{100 * sheet().errors(pages[0]['text']):8.2f}")
        for variant in VARIANTS:
            scan = paper.scanned(sheet, variant, pages=1)
            picture = folder / f"{scan.paper.name}-{variant.name}.png"
            picture.write_bytes(scan.png())
            [page] = readers.read(scan.png(), is_pdf=False).pages
            plain = [_plain(readers, mode, [picture]).communicate()[0].decode() for mode in (3, 4)]
            told = "".join(f"{100 * scan.paper.errors(text):8.2f}" for text in (page["text"], *plain))
            print(f"{scan.paper.name:14}{variant.name:12}{told}")


def _speed(readers: Readers, folder: Path) -> None:
    scan = paper.scanned(paper.price_list, VARIANTS[1], pages=1)
    file = folder / "many.tiff"
    file.write_bytes(_many(scan, PAGES))
    took: dict[str, list[float]] = {"reader": [], "plain": []}
    cost: dict[str, list[float]] = {"reader": [], "plain": []}
    for _ in range(2):
        started, before = time.perf_counter(), _spent()
        both = [readers.start(file.read_bytes(), is_pdf=False, stdout=subprocess.DEVNULL) for _ in range(2)]
        for process, start in both:
            assert process.stdin is not None
            process.stdin.write(start)
            process.stdin.flush()
        for process, _ in both:
            process.communicate()
        took["reader"].append(time.perf_counter() - started)
        cost["reader"].append(_spent() - before)
        started, before = time.perf_counter(), _spent()
        for process in [_plain(readers, 4, [file]) for _ in range(2)]:
            process.communicate()
        took["plain"].append(time.perf_counter() - started)
        cost["plain"].append(_spent() - before)
    fastest = {name: min(times) for name, times in took.items()}
    for name, seconds in fastest.items():
        print(f"{name:10}{2 * PAGES * 60 / seconds:8.0f} pages a minute on two cores, A4 at 150 dpi")
    ratio = min(cost["plain"]) / min(cost["reader"])
    print(f"ratio {ratio:.2f} by processor time, processes and their start included")


def _spent() -> float:
    """Processor time of all processes that were waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _plain(readers: Readers, mode: int, files: Sequence[Path]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", PLAIN, str(mode), "+".join(readers.languages), readers.data_path, *map(str, files)],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "OMP_THREAD_LIMIT": "1"},
    )


def _many(scan: Scan, count: int) -> bytes:
    file = io.BytesIO()
    first, *others = [scan.pages[0].copy() for _ in range(count)]
    first.save(file, "TIFF", save_all=True, append_images=others, dpi=(scan.dpi, scan.dpi))
    return file.getvalue()
