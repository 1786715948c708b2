"""Further files for campaigns that are in MLflow already, for example a comparison of two of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from meltrepro.track.ledger import open_ledger


def attach(folders: Sequence[Path], files: Mapping[str, str]) -> int:
    """Log text files, by artifact path, to the parent runs of campaigns; returns how many runs took them.

    A campaign that is nowhere in MLflow is passed over. Raises `TrackingError`.
    """
    places = [place for folder in folders for place in open_ledger(folder).document.places]
    if not places:
        return 0  # mlflow takes seconds to import
    from meltrepro.track import quiet

    with quiet.importing():
        from mlflow import MlflowClient

    from meltrepro.track.mlflow_tracker import plainly

    for place in places:
        with plainly(place.uri):
            client = MlflowClient(tracking_uri=place.uri)
            for name, text in files.items():
                client.log_text(place.campaign.run_id, text, name)
    return len(places)
