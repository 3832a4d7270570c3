"""Documents that a real worker reads: what is kept of them, and what hostile files, kills and requests to stop do."""

from __future__ import annotations

import io
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.pdfgen.canvas import Canvas

from tests.conftest import Programs, WorkerFactory
from tests.factories import Person, new_user
from tests.harness import documents, paper
from tests.harness.client import GraphQLClient
from tests.harness.documents import CANCEL, ReadingRoom, open_room
from tests.harness.processes import CLI, Program
from tests.harness.waiting import eventually, leftover_processes

SETTINGS = {
    "WORKER_CRAWL_SLOTS": "0",
    "WORKER_BUILD_SLOTS": "0",
    "WORKER_SCAN_SLOTS": "0",
    "WORKER_OCR_SLOTS": "2",
    "MAX_OCR_PER_USER": "2",
    "OCR_MAX_PAGES": "40",
    "MEDIA_MEMORY_MEGABYTES": "512",
}
CANCEL_SECONDS = 2.0
PAGES = 12


@pytest_asyncio.fixture(scope="module")
async def room(client: GraphQLClient, settings_env: dict[str, str]) -> AsyncIterator[ReadingRoom]:
    async with open_room(client, settings_env) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module")
async def person(client: GraphQLClient) -> Person:
    return await new_user(client)


@pytest_asyncio.fixture(scope="module")
async def worker(programs: Programs) -> Program:
    started = programs.start([CLI, "worker"], kind="worker")
    await started.wait_event("worker_started")
    return started


@pytest.fixture(scope="module")
def long_scan() -> bytes:
    """A dozen scanned pages, some five seconds of work."""
    page = paper.scanned(paper.dollar_list, paper.VARIANTS[0]).pages[0]
    file = io.BytesIO()
    others = [page.copy() for _ in range(PAGES - 1)]
    page.copy().save(
        file, "TIFF", save_all=True, append_images=others, compression="tiff_adobe_deflate", dpi=(200, 200)
    )
    return file.getvalue()


async def test_a_killed_worker_leaves_pages_that_the_next_goes_on_behind(
    room: ReadingRoom, person: Person, worker_factory: WorkerFactory, long_scan: bytes
) -> None:
    first = worker_factory()
    job_id = await room.enqueue(person, await room.medium(person, long_scan, kind="IMAGE"), languages=["eng"])
    before = await room.has_pages(job_id, 2)
    first.kill()
    worker_factory()
    job = await room.ended(person, job_id)
    assert (job["status"], job["attempt"], job["pagesRead"], job["pageCount"]) == ("SUCCEEDED", 2, PAGES, PAGES)
    after = await room.stored(job_id)
    assert before.items() <= after.items()
    assert sorted(after) == list(range(1, PAGES + 1))
    log = await room.messages(person, job_id)
    assert any(line.startswith("Going on behind ") for line in log)


async def test_a_text_layer_is_read_as_it_is(room: ReadingRoom, person: Person, worker: Program) -> None:
    sheet = paper.price_list()
    job = await room.read(person, sheet.pdf, defaultCurrency="ARS")
    assert (job["status"], job["failure"]) == ("SUCCEEDED", None)
    assert (job["pageCount"], job["pagesRead"], job["confidence"], job["engine"]) == (2, 2, None, None)
    assert (job["progress"], job["defaultCurrency"]) == (100, "ARS")
    pages = await room.pages(person, job["id"])
    assert [(page["number"], page["source"], page["rotation"]) for page in pages] == [
        (1, "TEXT_LAYER", 0.0),
        (2, "TEXT_LAYER", 0.0),
    ]
    for page in pages:
        assert sheet.errors(page["text"], page["number"]) == 0
        assert (round(page["width"]), round(page["height"])) == (595, 842)
    [price] = [word for word in pages[0]["words"] if word["text"] == "12.499,00"]
    assert 0.80 < price["left"] < price["right"] < 0.93
    assert 0.22 < price["top"] < price["bottom"] < 0.25
    log = await room.messages(person, job["id"])
    assert any("Page 1: text layer, 152 words" in line for line in log)


async def test_a_scan_is_recognised_and_says_how_surely(room: ReadingRoom, person: Person, worker: Program) -> None:
    scan = paper.scanned(paper.dollar_list, paper.VARIANTS[1])
    job = await room.read(person, scan.png(), kind="IMAGE", languages=["eng"])
    assert job["status"] == "SUCCEEDED", job
    assert job["confidence"] > 85
    assert "esseract" in job["engine"]
    [page] = await room.pages(person, job["id"])
    assert page["source"] == "OCR"
    assert scan.paper.errors(page["text"]) < 0.02
    assert page["rotation"] == pytest.approx(-1.2, abs=0.2)
    assert (page["width"], page["height"]) == scan.pages[0].size
    assert all(0 <= word["left"] <= word["right"] <= 1 and 0 <= word["confidence"] <= 100 for word in page["words"])
    assert 0.2 < job["cpuSeconds"] < 60
    assert 30 * 2**20 < job["peakMemoryBytes"] < 2**30


async def test_force_ocr_passes_over_a_text_layer(room: ReadingRoom, person: Person, worker: Program) -> None:
    job = await room.read(person, paper.dollar_list().pdf, forceOcr=True, languages=["eng"])
    [page] = await room.pages(person, job["id"])
    assert (page["source"], job["forceOcr"]) == ("OCR", True)
    assert paper.dollar_list().errors(page["text"]) < 0.02


async def test_a_page_that_ends_its_reader_costs_itself_alone(
    room: ReadingRoom, person: Person, worker: Program
) -> None:
    file = documents.flate_bomb_pdf(good_pages=("The first page", "The last page"))
    job = await room.read(person, file)
    assert (job["status"], job["pageCount"], job["pagesRead"]) == ("SUCCEEDED", 3, 2)
    assert {page["number"]: page["text"] for page in await room.pages(person, job["id"])} == {
        1: "The first page",
        3: "The last page",
    }
    log = await room.messages(person, job["id"])
    assert any(line.startswith("Page 2: not read. It needs more memory") for line in log)


async def test_hostile_files_fail_with_a_reason_and_the_worker_lives_on(
    room: ReadingRoom, person: Person, worker: Program
) -> None:
    files = {
        "flate bomb": ("PDF", documents.flate_bomb_pdf(), "OUT_OF_MEMORY", "more memory"),
        "many pages": ("PDF", documents.many_pages_pdf(200_000), "INVALID_INPUT", "200,000 pages; 40"),
        "encrypted": ("PDF", encrypted_pdf(), "INVALID_INPUT", "encrypted"),
        "no PDF": ("PDF", b"%PDF-1.7 and nothing else", "INVALID_INPUT", "damaged or no PDF"),
        "900 megapixels": ("IMAGE", documents.huge_png(), "INVALID_INPUT", "larger than 50 megapixels"),
        "cut off": (
            "IMAGE",
            paper.scanned(paper.dollar_list, paper.VARIANTS[0]).png()[:5_000],
            "INVALID_INPUT",
            "damaged",
        ),
        "SVG": ("IMAGE", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "INVALID_INPUT", "no picture of a kind"),
    }
    jobs = {
        name: await room.enqueue(person, await room.medium(person, content, kind=kind))
        for name, (kind, content, _, _) in files.items()
    }
    for name, (_, _, code, words) in files.items():
        job = await room.ended(person, jobs[name])
        assert (name, job["status"], job["failure"]["code"]) == (name, "FAILED", code)
        assert words in job["failure"]["message"], name
        assert await room.stored(jobs[name]) == {}
    # A page that is only too large is drawn as small as it has to be, and is empty.
    huge = await room.read(person, documents.huge_page_pdf())
    assert (huge["status"], huge["pagesRead"]) == ("SUCCEEDED", 1)
    assert worker.exit_code is None


async def test_a_medium_that_is_gone_is_said_so(room: ReadingRoom, person: Person, worker: Program) -> None:
    job = await room.ended(person, await room.enqueue(person, await room.medium(person)))
    assert (job["status"], job["failure"]["code"]) == ("FAILED", "INVALID_INPUT")
    assert "deleted before it was read" in job["failure"]["message"]


async def test_a_reading_that_is_cancelled_stops_at_once_and_keeps_its_pages(
    room: ReadingRoom, person: Person, worker: Program, long_scan: bytes, settings_env: dict[str, str]
) -> None:
    job_id = await room.enqueue(person, await room.medium(person, long_scan, kind="IMAGE"), languages=["eng"])
    await room.has_pages(job_id, 1)
    asked = time.monotonic()
    await room.run(person, CANCEL, input={"id": job_id})
    job = await room.ended(person, job_id)
    assert time.monotonic() - asked < CANCEL_SECONDS
    assert (job["status"], job["candidateCount"]) == ("CANCELLED", 0)
    assert 1 <= job["pagesRead"] == len(await room.stored(job_id)) < PAGES

    def readers() -> list[str]:
        return [line for line in leftover_processes(settings_env["REDIS_NAMESPACE"]).values() if "ocr.reader" in line]

    await eventually(lambda: not readers(), what="the end of the reader")


def encrypted_pdf() -> bytes:
    file = io.BytesIO()
    drawing = Canvas(file, encrypt=StandardEncryption("a secret"))
    drawing.drawString(50, 50, "hidden")
    drawing.save()
    return file.getvalue()
