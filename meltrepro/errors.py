"""Every error that a user can meet: one tree, an exit code each, a cause and a next step.

`MeltreproError` carries a one-paragraph message and, where there is one, a hint that says what to do next. The
command line prints both and exits with `exit_code`; nothing in this tree ever reaches a user as a traceback.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class MeltreproError(Exception):
    """Base of everything that is reported to the user in plain words."""

    exit_code = 1
    transient = False
    """Whether the same action may succeed when tried again without anybody's help."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    @property
    def one_line(self) -> str:
        """Cause and next step, where both are to be one text."""
        return f"{self.message}; {self.hint}" if self.hint else self.message


# -- what the user wrote ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Problem:
    """One fault in a text that a person wrote: where it is, what was expected, how to mend it."""

    file: str
    line: int
    column: int
    field: str
    """Path of the field, `models.smollm2-135m.quantizations[0]`; empty for a fault of the file itself."""
    message: str
    suggestion: str | None = None

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}"
        what = f"{self.field}: {self.message}" if self.field else self.message
        return f"{where}: {what}" + (f" ({self.suggestion})" if self.suggestion else "")


class UsageError(MeltreproError):
    """The command line itself is wrong."""

    exit_code = 2


class ManifestError(MeltreproError):
    """A manifest, prompt file or mirror map is wrong; all its problems are reported at once."""

    exit_code = 3

    def __init__(self, problems: Sequence[Problem], *, hint: str | None = None) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems), hint=hint)


class PlanError(MeltreproError):
    """The manifest is well formed, but nothing in it can be run."""

    exit_code = 4


class LockError(MeltreproError):
    """The lock is missing or damaged, lacks an entry, or may not be changed (`--locked`)."""

    exit_code = 5


class LockFormatError(LockError):
    """The lock is of a format version that this meltrepro does not know."""

    exit_code = 6


class StaleLock(LockError):
    """The lock belongs to another state of its manifest."""

    exit_code = 7


class LockMismatch(LockError):
    """An entry of the lock is not what its source, prompt, recipe, base or toolchain has; both values are named."""

    exit_code = 8


# -- where bytes come from and where they are kept ---------------------------------------------------------------


class SourceError(MeltreproError):
    """A source cannot be had: it does not exist, or its server refuses."""

    exit_code = 10


class DownloadError(SourceError):
    """A transfer broke off; what arrived is kept and the next try resumes it."""

    exit_code = 11
    transient = True


class DigestMismatch(SourceError):
    """The bytes are not the ones that were pinned; the message names both digests."""

    exit_code = 12


class OfflineError(SourceError):
    """Offline mode is on and the store does not hold what is needed."""

    exit_code = 13


class StoreError(MeltreproError):
    """The store cannot be written: no permission, or no space left."""

    exit_code = 14


class CorruptStore(StoreError):
    """An object in the store no longer matches its own digest."""

    exit_code = 15


class DataError(MeltreproError):
    """The data of an accuracy workload are not what its task needs; the message says where in them."""

    exit_code = 16


# -- building -----------------------------------------------------------------------------------------------------


class EngineError(MeltreproError):
    """No build engine answers, or it stopped in the middle of the work."""

    exit_code = 20
    transient = True


class BuildError(MeltreproError):
    """A build step failed; the message holds its last lines and where the whole log is."""

    exit_code = 21


class ModelError(MeltreproError):
    """A model file is not what it should be (not GGUF, truncated, wrong architecture)."""

    exit_code = 22

    def __init__(self, message: str, *, hint: str | None = None, problems: Sequence[Problem] = ()) -> None:
        super().__init__(message, hint=hint)
        self.problems = tuple(problems)
        """Where a manifest names the files, if it is a manifest that was looked at."""


class VerifyError(MeltreproError):
    """A rebuild gave other bytes than the lock names."""

    exit_code = 23


# -- devices and trials -------------------------------------------------------------------------------------------


class TargetError(MeltreproError):
    """A device refuses, or cannot do what is asked; trying again will not help."""

    exit_code = 30


class DriverMissing(TargetError):
    """What it takes to reach a kind of device is not installed here; cells of such devices are left out."""

    exit_code = 36


class TargetLost(TargetError):
    """The link to a device broke or it went away; it may come back."""

    exit_code = 31
    transient = True


class DeviceBusy(TargetError):
    """Another campaign is measuring on the same device."""

    exit_code = 32
    transient = True


class NothingThere(TargetError):
    """None of the devices that cells are left for can be measured now; the message names each with its reason."""

    exit_code = 37
    transient = True


class LabError(MeltreproError):
    """The head of a lab of many hosts does not answer, or refuses; the message says why."""

    exit_code = 38
    transient = True


class TrialFailed(MeltreproError):
    """One or more trials of a campaign ended without a valid result."""

    exit_code = 33


class RecordError(MeltreproError):
    """A record on disk is incomplete, damaged or was changed."""

    exit_code = 35


# -- tracking and replication -------------------------------------------------------------------------------------


class TrackingError(MeltreproError):
    """MLflow cannot be reached or refuses; records on disk are untouched and `meltrepro sync` pays the debt."""

    exit_code = 40
    transient = True


class BundleError(MeltreproError):
    """A bundle is damaged, or not one at all; the message names the first bad member."""

    exit_code = 50


class EscapingPath(BundleError):
    """A member of a bundle has a name that leads out of the folder it would be unpacked to."""

    exit_code = 51


class UnsafeMember(BundleError):
    """A member of a bundle is a link, a device or anything else but a plain file."""

    exit_code = 52


class TruncatedBundle(BundleError):
    """A bundle ends before its end; the message names the member that it ends in."""

    exit_code = 53


class NothingToPack(BundleError):
    """The campaign that is to be a bundle has no result; the message says what became of its trials."""

    exit_code = 54


class Differs(MeltreproError):
    """A replay did not reproduce the recorded result."""

    exit_code = 60


class Inconclusive(MeltreproError):
    """A replay could not decide within its declared number of trials."""

    exit_code = 61


class NothingToCompare(MeltreproError):
    """The campaigns that `compare` was given have no cell in common; the message names the cells of both."""

    exit_code = 62


class ReportDiffers(MeltreproError):
    """A report that was made anew from the records has other bytes than the one on disk."""

    exit_code = 65


# -- public records -----------------------------------------------------------------------------------------------


class EntryError(MeltreproError):
    """An entry cannot be made, signed or read: too large, damaged, of another record."""

    exit_code = 66


class PrivateText(EntryError):
    """What is to be published holds a name, a path, an address, a serial number or a secret; the message names each field."""

    exit_code = 67


class WrongSignature(EntryError):
    """A signature is not of the entry that it stands beside."""

    exit_code = 68


class Interrupted(MeltreproError):
    """The user stopped the command (Ctrl-C); what was done is kept and a rerun continues."""

    exit_code = 130
