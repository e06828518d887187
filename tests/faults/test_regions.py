"""Three regions in processes of their own, whose ways to each other and whose lives end at bad moments (REL-29 to 36).

After each case every region serves, byte for byte, whatever any region has acknowledged, and all agree on every tag.
"""

from __future__ import annotations

import os
import random
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.support.daemon import run_command
from tests.support.fault_proxy import Fault
from tests.support.images import BuiltImage, build_image, build_index
from tests.support.region_processes import AP, EU, US, Regions, destinations, every_way, one_way
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900 if os.environ.get("REPLICATOR_CAMPAIGN") else 240)]

APP = "team/app"
CAMPAIGN = bool(os.environ.get("REPLICATOR_CAMPAIGN"))
"""Whether there is time for everything; otherwise some cases are smaller."""
IMAGES, RESTARTS, SEEDS = (1000, 20, 20) if CAMPAIGN else (300, 3, 2)
PATIENT = {"connect_timeout": "2s", "stall_timeout": "2s", "total_timeout": "5s"}
"""How long regions wait for each other here, so that a dead connection is noticed while a test waits."""


def image(name: str, size: int = 20_000) -> BuiltImage:
    """Return an image with a config and two layers of its own."""
    content = random.Random(name)  # noqa: S311 - the same bytes in every run
    return build_image([content.randbytes(size), content.randbytes(size // 2)], annotations={"name": name})


@pytest.fixture
def star(tmp_path: Path) -> Iterator[Regions]:
    with Regions(tmp_path, one_way, peer=PATIENT) as regions:
        yield regions


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Regions]:
    with Regions(tmp_path, every_way, peer=PATIENT) as regions:
        yield regions


class TestRel29Verified:
    def test_a_destination_that_dies_at_the_end_of_a_copy_gets_it_again(self, star: Regions) -> None:
        """The source believes a receipt only; a destination killed before it gave one is sent everything it lacks."""
        first = image("first", 3_000_000)
        star.fail(US, EU, Fault(rate=2_000_000))
        star.push(US, APP, "v1", first)
        eventually(lambda: star.ways[US, EU].carried > 1_000_000, "the copy to be under way")
        star.kill(EU)
        star.heal()
        star.start(EU)
        star.until_has(EU, APP, "v1", first)
        star.until_quiet()
        star.check(APP)

    def test_what_a_destination_loses_after_its_receipt_is_found_and_repaired(self, tmp_path: Path) -> None:
        """The store of a destination goes back in time behind everybody's back; the comparison finds it."""
        often = {US: {"replication": {"anti_entropy": {"every": "1s"}}}}
        with Regions(tmp_path, one_way, settings=often, peer=PATIENT) as regions:
            images = [image(f"image {number}") for number in range(5)]
            for number, one in enumerate(images):
                regions.push(US, APP, f"v{number}", one)
            regions.until_quiet()
            regions.kill(EU)
            with closing(sqlite3.connect(regions.daemons[EU].data() / "metadata.db")) as store, store:
                store.execute("delete from images where digest = ?", (images[1].digest,))
                store.execute("delete from tags where tag in ('v1', 'v2')")
                store.execute("delete from repository_blobs where digest = ?", (images[1].layers[0],))
            regions.start(EU)
            regions.until_has(EU, APP, "v1", images[1])
            regions.until_has(EU, APP, "v2", images[2])
            regions.check(APP)
            assert regions.metrics(US, "replicator_replication_drift_found_total") >= 2


class TestRel30Outage:
    def test_many_images_pushed_during_an_outage_arrive_by_themselves(self, star: Regions) -> None:
        """The destination is down, and the source is killed and started again and again meanwhile (1,000 and 20)."""
        shared = image("shared")
        star.push(US, APP, "base", shared)
        star.until_quiet()
        star.kill(EU)
        pushed = {}
        for number in range(IMAGES):
            one = build_image([*(shared.blobs[layer] for layer in shared.layers)], annotations={"n": str(number)})
            if number == 0:
                star.push(US, APP, "v0", one)  # with its config, which all the others share
            star.put_manifest(US, APP, f"v{number}", one)
            pushed[f"v{number}"] = one.digest
            if number % (IMAGES // RESTARTS) == 0:
                star.kill(US)
                star.start(US)
        carried = star.ways[US, EU].carried
        star.start(EU)
        eventually(lambda: len(star.tag_names(EU, APP)) == IMAGES + 1, "all images to arrive", within=120)
        star.until_quiet()
        assert star.tags(EU, APP).items() >= pushed.items()
        assert star.ways[US, EU].carried - carried < IMAGES * 10_000, "no blob crossed again"

    def test_many_pushes_of_one_tag_during_an_outage_leave_one_job(self, star: Regions) -> None:
        star.kill(EU)
        for number in range(50):
            star.push(US, APP, "latest", image(f"build {number}", 1000))
        waiting = star.get(US, "/_replicator/v1/status").json()["replication"]["jobs"]
        assert waiting["queued"] + waiting["leased"] <= 2 + 2, "one for each destination, and what is under way"
        star.start(EU)
        star.until_has(EU, APP, "latest", image("build 49", 1000))


class TestRel31Killed:
    @pytest.mark.parametrize("seed", range(SEEDS))
    def test_regions_killed_at_random_moments_lose_nothing(self, star: Regions, seed: int) -> None:
        moments = random.Random(seed)  # noqa: S311 - the same moments in every run
        star.fail(US, EU, Fault(rate=4_000_000))
        star.fail(US, AP, Fault(rate=4_000_000))
        for number in range(4):
            star.push(US, APP, f"v{number}", image(f"{seed} {number}", 1_000_000))
            begun = star.ways[US, EU].carried
            enough = begun + moments.randrange(1, 1_500_000)
            eventually(lambda enough=enough: star.ways[US, EU].carried >= enough or star.is_quiet(), "bytes to flow")  # type: ignore[misc]
            victim = moments.choice((US, EU, AP))
            star.kill(victim)
            star.start(victim)
        star.heal()
        for number in range(4):
            for region in (EU, AP):
                star.until_has(region, APP, f"v{number}", image(f"{seed} {number}", 1_000_000))
        star.until_quiet()
        star.check(APP)

    def test_a_region_that_is_asked_to_stop_ends_in_the_middle_of_a_blob(self, star: Regions) -> None:
        star.fail(US, EU, Fault(rate=500_000))
        star.push(US, APP, "v1", image("large", 8_000_000))
        eventually(lambda: star.ways[US, EU].carried > 300_000, "a blob to be on its way")
        assert star.daemons[US].terminate() == 0
        star.heal()
        star.start(US)
        star.until_has(EU, APP, "v1", image("large", 8_000_000))


class TestRel32Disorder:
    def test_connections_that_break_all_the_time_bring_everything_once(self, star: Regions) -> None:
        """Three in ten connections are reset somewhere: deliveries repeat, blobs go on where they broke."""
        star.fail(US, EU, Fault(reset_share=0.3))
        for number in range(10):
            star.push(US, APP, f"v{number}", image(f"image {number}", 200_000))
        star.push(US, APP, "index", build_index([image("index a"), image("index b")]))
        star.heal()
        star.until_quiet()
        star.check(APP)
        assert star.tags(EU, APP) == star.tags(US, APP)

    def test_a_flipped_bit_never_arrives(self, star: Regions) -> None:
        star.fail(US, EU, Fault(corrupt_after=150_000))
        star.push(US, APP, "v1", image("damaged on the way", 400_000))
        star.until_has(AP, APP, "v1", image("damaged on the way", 400_000))
        eventually(lambda: star.ways[US, EU].damaged, "a bit to be flipped")
        arrived = star.digest(EU, APP, "v1")  # by now perhaps, over a connection that is past the damage
        assert arrived is None or star.holds(EU, APP, image("damaged on the way", 400_000))
        star.heal()
        star.until_has(EU, APP, "v1", image("damaged on the way", 400_000))
        star.check(APP)


class TestRel33SameTag:
    def test_two_regions_that_write_one_tag_during_a_partition_agree(self, mesh: Regions) -> None:
        mesh.push(US, APP, "latest", image("before"))
        mesh.until_equal(APP)
        mesh.split([US], [EU, AP])
        ours, theirs = image("written in us"), image("written in eu")
        mesh.push(US, APP, "latest", ours)
        mesh.push(EU, APP, "latest", theirs)
        mesh.heal()
        winner = mesh.until_equal(APP)["latest"]
        assert winner == theirs.digest, "it was written last"
        mesh.check(APP)
        reported = [mesh.get(name, "/_replicator/v1/replication/conflicts").json() for name in mesh.names]
        assert any(ours.digest in str(one) for one in reported)

    def test_a_tag_that_moves_while_connections_are_slow_ends_where_it_was_moved_last(self, star: Regions) -> None:
        star.fail(US, EU, Fault(delay=0.05))
        for number in range(6):
            star.push(US, APP, "latest", image(f"move {number}", 1000))
        star.until_quiet()
        star.until_has(EU, APP, "latest", image("move 5", 1000))


class TestRel34Deletes:
    def test_a_deletion_wins_over_an_older_copy_and_a_newer_push_over_the_deletion(self, mesh: Regions) -> None:
        first, second = image("deleted"), image("pushed again")
        mesh.push(US, APP, "v1", first)
        mesh.until_equal(APP)
        mesh.split([US, AP], [EU])
        mesh.delete(US, APP, first.digest)
        mesh.push(EU, APP, "other", second)
        mesh.heal()
        assert set(mesh.until_equal(APP)) == {"other"}
        mesh.check(APP)
        mesh.acknowledged.deleted.clear()
        mesh.push(US, APP, "v1", first)
        assert mesh.until_equal(APP)["v1"] == first.digest
        mesh.check(APP)

    def test_an_image_deleted_while_its_copy_is_under_way_does_not_come_back(self, mesh: Regions) -> None:
        mesh.fail(US, EU, Fault(rate=500_000))
        victim = image("deleted on its way", 1_500_000)
        mesh.push(US, APP, "v1", victim)
        eventually(lambda: mesh.ways[US, EU].carried > 300_000, "the copy to be under way")
        mesh.delete(US, APP, victim.digest)
        mesh.heal()
        assert mesh.until_equal(APP) == {}
        mesh.check(APP)


class TestRel35Partitions:
    def _work_apart(self, mesh: Regions) -> None:
        for name in mesh.names:
            mesh.push(name, APP, f"of-{name}", image(f"of {name}"))
            assert mesh.digest(name, APP, f"of-{name}") is not None, "every region goes on by itself"

    def test_one_region_apart(self, mesh: Regions) -> None:
        mesh.split([US], [EU, AP])
        self._work_apart(mesh)
        mesh.until_has(AP, APP, f"of-{EU}", image(f"of {EU}"))
        assert mesh.digest(US, APP, f"of-{EU}") is None
        mesh.heal()
        assert len(mesh.until_equal(APP)) == 3
        mesh.check(APP)

    def test_all_regions_apart(self, mesh: Regions) -> None:
        mesh.split([US], [EU], [AP])
        self._work_apart(mesh)
        mesh.heal()
        assert len(mesh.until_equal(APP)) == 3
        mesh.check(APP)

    def test_one_direction_only(self, mesh: Regions) -> None:
        mesh.fail(EU, US, Fault(refuse=True))
        self._work_apart(mesh)
        mesh.until_has(EU, APP, f"of-{US}", image(f"of {US}"))
        mesh.heal()
        assert len(mesh.until_equal(APP)) == 3
        mesh.check(APP)

    def test_connections_that_stay_open_without_life(self, mesh: Regions) -> None:
        mesh.fail(US, EU, Fault(half_open=True))
        self._work_apart(mesh)
        mesh.until_has(AP, APP, f"of-{US}", image(f"of {US}"))
        mesh.heal()
        assert len(mesh.until_equal(APP)) == 3
        mesh.check(APP)

    def test_a_link_that_comes_and_goes(self, mesh: Regions) -> None:
        for number in range(6):
            mesh.split([US], [EU, AP]) if number % 2 else mesh.heal()
            mesh.push(mesh.names[number % 3], APP, f"flap-{number}", image(f"flap {number}", 100_000))
        mesh.heal()
        assert len(mesh.until_equal(APP)) == 6
        mesh.check(APP)

    def test_a_thin_link(self, mesh: Regions) -> None:
        mesh.fail(US, EU, Fault(rate=625_000))
        mesh.push(US, APP, "v1", image("over five megabits", 500_000))
        mesh.until_has(EU, APP, "v1", image("over five megabits", 500_000))


class TestRel36Later:
    def test_images_from_before_a_rule_come_by_a_backfill(self, tmp_path: Path) -> None:
        rules: dict[str, list[dict[str, object]]] = {}
        with Regions(tmp_path, lambda region: rules.get(region, []), peer=PATIENT) as regions:
            images = {f"v{number}": image(f"image {number}") for number in range(20)}
            for tag, one in images.items():
                regions.push(US, APP, tag, one)
            source = regions.daemons[US]
            source.terminate()
            rule = {"name": "later", "destinations": destinations(EU)}
            source.document["nodes"][0]["replication"]["rules"] = [rule]
            regions.start(US)
            regions.push(US, APP, "new", image("new"))
            regions.until_has(EU, APP, "new", image("new"))
            assert set(regions.tags(EU, APP)) == {"new"}, "what was there before is not sent by itself"

            config = str(source.config)
            started = run_command(
                "backfill",
                "start",
                "--destination",
                f"111122223333/{EU}",
                "--config",
                config,
                cwd=tmp_path,
                environ=source.environ,
            )
            assert started.returncode == 0, started.stderr
            regions.kill(US)
            regions.start(US)
            eventually(lambda: set(regions.tags(EU, APP)) == {*images, "new"}, "the backfill to end", within=60)
            regions.until_quiet()
            regions.check(APP, [US, EU])
            audit = run_command("sync", "--dry-run", "--json", "--config", config, cwd=tmp_path, environ=source.environ)
            assert audit.returncode == 0, audit.stderr
            assert regions.tags(AP, APP) == {}
