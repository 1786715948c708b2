"""Further files for campaigns that are in MLflow already, for example a comparison of two of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from meltrepro.track.ledger import open_ledger
from meltrepro.track.places import Place


def attach(folders: Sequence[Path], files: Mapping[str, str], place: Place) -> int:
    """Log text files, by artifact path, to the parent runs of campaigns at a place; returns how many runs took them.

    A campaign that is not there is passed over: a ledger says what was logged, not whom to trust. Raises `TrackingError`.
    """
    notes = [note for folder in folders if (note := open_ledger(folder).place(place.shown)) is not None]
    if not notes:
        return 0  # mlflow takes seconds to import
    from meltrepro.track import quiet

    with quiet.importing():
        from mlflow import MlflowClient

    from meltrepro.track.artifacts import Artifacts
    from meltrepro.track.mlflow_tracker import plainly

    with plainly(place), TemporaryDirectory() as scratch:
        client = MlflowClient(tracking_uri=place.uri)
        for note in notes:
            artifacts = Artifacts(client, place, note.campaign.run_id)
            for name, text in files.items():
                path = Path(scratch) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
                artifacts.put(path, name.rpartition("/")[0] or None)
    return len(notes)
