"""Scans and findings on every database."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from replicator.core.digest import digest_of
from replicator.core.names import RepositoryName
from replicator.core.scanning import ScanState, ScanStatus, ScanType
from replicator.storage.metadata import scans
from replicator.storage.metadata.scans import ScanSummary, StoredFinding

if TYPE_CHECKING:
    from replicator.storage.metadata.database import Database

APP, IMAGE, OTHER = RepositoryName("team/app"), digest_of(b"image"), digest_of(b"other")
BASIC, ENHANCED = ScanType.BASIC, ScanType.ENHANCED
DONE = ScanState(BASIC, ScanStatus.COMPLETE, 10.5, "done", 11.0, 9.25)
FINDINGS = [StoredFinding(number, "HIGH" if number % 2 else "LOW", {"name": f"CVE-{number}"}) for number in range(5)]


async def test_a_scan_is_kept_with_its_findings_by_type(database: Database) -> None:
    await database.write(partial(scans.put, APP, IMAGE, DONE))
    await database.write(partial(scans.add_findings, APP, IMAGE, BASIC, FINDINGS))
    assert await database.read(scans.find(APP, IMAGE, BASIC)) == DONE
    assert await database.read(scans.find(APP, IMAGE, ENHANCED)) is None
    assert await database.read(scans.find_summary(APP, IMAGE, BASIC)) == ScanSummary(DONE, {"HIGH": 2, "LOW": 3})
    assert await database.read(scans.find_summary(APP, OTHER, BASIC)) is None
    assert await database.read(scans.findings_after(APP, IMAGE, BASIC, -1, 2)) == FINDINGS[:2]
    assert await database.read(scans.findings_after(APP, IMAGE, BASIC, 1, 9)) == FINDINGS[2:]
    assert await database.read(scans.findings_after(APP, IMAGE, ENHANCED, -1, 9)) == []


async def test_a_newer_scan_takes_the_findings_of_the_former_one_away(database: Database) -> None:
    enhanced = ScanState(ENHANCED, ScanStatus.ACTIVE, 1.0)
    for state in (DONE, enhanced):
        await database.write(partial(scans.put, APP, IMAGE, state))
        await database.write(partial(scans.add_findings, APP, IMAGE, state.scan_type, FINDINGS))
    again = ScanState(BASIC, ScanStatus.IN_PROGRESS, 20.0)
    await database.write(partial(scans.put, APP, IMAGE, again))
    assert await database.read(scans.find_summary(APP, IMAGE, BASIC)) == ScanSummary(again, {})
    assert await database.read(scans.findings_after(APP, IMAGE, ENHANCED, -1, 9)) == FINDINGS


async def test_an_image_that_goes_is_forgotten_and_no_other(database: Database) -> None:
    for image in (IMAGE, OTHER):
        await database.write(partial(scans.put, APP, image, DONE))
        await database.write(partial(scans.add_findings, APP, image, BASIC, FINDINGS))
    await database.write(partial(scans.forget, APP, IMAGE))
    assert await database.read(scans.find(APP, IMAGE, BASIC)) is None
    assert await database.read(scans.findings_after(APP, IMAGE, BASIC, -1, 9)) == []
    assert await database.read(scans.findings_after(APP, OTHER, BASIC, -1, 9)) == FINDINGS


async def test_how_many_scans_were_asked_for_lately(database: Database) -> None:
    for number, image in enumerate((IMAGE, OTHER)):
        await database.write(partial(scans.put, APP, image, ScanState(BASIC, ScanStatus.FAILED, 10.0 + number)))
    await database.write(partial(scans.put, APP, IMAGE, ScanState(ENHANCED, ScanStatus.ACTIVE, 30.0)))
    for number, since, expected in ((1, 9.0, True), (2, 9.0, True), (3, 9.0, False), (2, 10.0, False)):
        assert await database.read(scans.has_at_least(number, BASIC, since)) is expected


async def test_the_scans_of_many_images_are_summed_up_at_once(database: Database) -> None:
    images = [digest_of(str(number).encode()) for number in range(150)]
    unfinished = ScanState(BASIC, ScanStatus.IN_PROGRESS, 20.0)
    for number, image in enumerate(images):
        await database.write(partial(scans.put, APP, image, unfinished if number % 3 else DONE))
    for image in (images[0], images[120]):
        await database.write(partial(scans.add_findings, APP, image, BASIC, FINDINGS))
    await database.write(partial(scans.put, RepositoryName("other"), OTHER, DONE))
    await database.write(partial(scans.put, APP, OTHER, ScanState(ENHANCED, ScanStatus.ACTIVE, 1.0)))
    found = await database.read(scans.summaries(APP, [*images, OTHER], BASIC))
    assert found.keys() == set(images)
    for number, image in enumerate(images):
        assert found[image] == await database.read(scans.find_summary(APP, image, BASIC)), number
    assert found[images[120]] == ScanSummary(DONE, {"HIGH": 2, "LOW": 3})
    assert await database.read(scans.summaries(APP, [], BASIC)) == {}
