"""Three regions on hosts of their own, whose packets a filter drops (REL-35 as a kernel makes it)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.faults.test_regions import APP, PATIENT, image
from tests.support.namespaces import PORT, HostedDaemon, Network, is_possible
from tests.support.region_processes import AP, EU, US, Regions, every_way
from tests.support.tools import give_up

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.support.daemon import Daemon, Document

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

FLAPS = 5


class Hosts(Regions):
    """Regions on a network, without proxies between them."""

    def __init__(self, directory: Path, network: Network) -> None:
        super().__init__(directory, every_way, peer=PATIENT)
        self.network = network

    def peer_url(self, name: str, other: str) -> str:
        """Return a host's own address."""
        return f"http://{self.network.address(other)}:{PORT}"

    def make_daemon(self, name: str, document: Document, environ: Mapping[str, str]) -> Daemon:
        """Return a daemon on a host."""
        return HostedDaemon(self._directory / name, document, environ, self.network, name)


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    reason = is_possible()
    if reason is not None:
        give_up(reason)
    with Network((US, EU, AP)) as network, Hosts(tmp_path, network) as regions:
        network.heal()
        yield regions


def converges(hosts: Hosts, count: int) -> None:
    """Heal, and check that all agree on so many tags within a minute, with every byte."""
    hosts.network.heal()
    assert len(hosts.until_equal(APP)) == count
    hosts.check(APP)


def work_apart(hosts: Hosts) -> None:
    """Push to every region, and pull it there at once."""
    for name in hosts.names:
        hosts.push(name, APP, f"of-{name}", image(f"of {name}"))
        assert hosts.digest(name, APP, f"of-{name}") == image(f"of {name}").digest


def test_one_region_apart(hosts: Hosts) -> None:
    hosts.network.split([US], [EU, AP])
    work_apart(hosts)
    hosts.until_has(AP, APP, f"of-{EU}", image(f"of {EU}"))
    assert hosts.digest(US, APP, f"of-{EU}") is None
    converges(hosts, 3)


def test_all_regions_apart_write_the_same_tag(hosts: Hosts) -> None:
    hosts.network.split()
    for name in hosts.names:
        hosts.push(name, APP, "latest", image(f"latest of {name}"))
    converges(hosts, 1)


def test_packets_of_one_direction_only(hosts: Hosts) -> None:
    hosts.network.drop(US, EU)
    work_apart(hosts)
    hosts.until_has(AP, APP, f"of-{US}", image(f"of {US}"))
    converges(hosts, 3)


def test_a_link_that_flaps_every_second(hosts: Hosts) -> None:
    for number in range(FLAPS):
        hosts.network.split([US], [EU, AP])
        hosts.push(US, APP, f"flap-{number}", image(f"flap {number}", 300_000))
        time.sleep(0.5)  # the fault itself: half a second without packets
        hosts.network.heal()
        time.sleep(0.5)
    converges(hosts, FLAPS)


def test_three_in_ten_packets_lost(hosts: Hosts) -> None:
    for source, destination in ((US, EU), (EU, US)):
        hosts.network.drop(source, destination, "numgen random mod 10 < 3")
    hosts.push(US, APP, "v1", image("over a bad line", 100_000))
    hosts.until_has(EU, APP, "v1", image("over a bad line", 100_000), within=90)
    converges(hosts, 1)


def test_five_megabits(hosts: Hosts) -> None:
    hosts.network.drop(US, EU, "limit rate over 625 kbytes/second")
    hosts.push(US, APP, "v1", image("over a thin line", 500_000))
    hosts.until_has(EU, APP, "v1", image("over a thin line", 500_000))
    converges(hosts, 1)
