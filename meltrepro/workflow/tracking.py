"""Logging a campaign that has just ended."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from meltrepro.errors import Interrupted, TrackingError

if TYPE_CHECKING:
    from meltrepro.settings import Settings
    from meltrepro.steps import Sink
    from meltrepro.track.places import Place


@dataclass(frozen=True)
class Logged:
    """Where a campaign was logged to, or why it was not."""

    place: Place | None = None
    """Where MLflow is, as far as that is known."""
    problem: TrackingError | None = None
    """Why the campaign is not there; its records are complete, and `meltrepro sync` logs them later."""

    @property
    def there(self) -> Place | None:
        """The place, if the campaign is there."""
        return None if self.problem else self.place

    @property
    def without_login(self) -> Place | None:
        """A server that only the manifest names, so that the user's login is not sent to it."""
        from meltrepro.track.places import is_server

        place = self.place
        return place if place is not None and is_server(place.uri) and not place.trusted else None


def log_campaign(folder: Path, uri: str | None, settings: Settings, sink: Sink) -> Logged:
    """Log a campaign, `uri` being what its manifest names. A server that does not answer is a debt and no failure."""
    from meltrepro import interrupts
    from meltrepro.track.mlflow_tracker import sync
    from meltrepro.track.places import choose, is_own

    try:
        place = choose(os.environ, uri, settings.tracking_uri)
    except TrackingError as error:
        return Logged(problem=error)
    later = (
        "meltrepro sync"
        if is_own(place, settings.tracking_uri)
        else f"MLFLOW_TRACKING_URI={place.shown} meltrepro sync {folder.name}"
    )
    try:
        with interrupts.raising():
            sync(folder, place, sink)
    except TrackingError as error:
        return Logged(place, TrackingError(error.message, hint=f"log it when that is mended, with: {later}"))
    except Interrupted as error:
        raise Interrupted(
            "stopped while logging to MLflow; the records are complete", hint=f"log the rest with: {later}"
        ) from error
    return Logged(place)
