"""Campaigns sort by when they began, also those of one second."""

from __future__ import annotations

from meltrepro.campaign.campaign import new_id

SECOND = 1_795_406_462 * 10**9


def test_campaigns_of_one_second_sort_by_time_whatever_their_names() -> None:
    began = [(SECOND, "zebra"), (SECOND + 7_000_000, "apple"), (SECOND + 120_000_000, "apple"), (SECOND + 10**9, "a")]
    ids = [new_id(name, wall_ns) for wall_ns, name in began]
    assert ids == sorted(ids)
    assert ids[1].startswith("20261123T040102.007Z-apple-")
