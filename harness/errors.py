"""Every error class of the harness, one for each remedy."""

from __future__ import annotations


class HarnessError(Exception):
    """The parent of every error that the harness raises on purpose."""


class ConfigError(HarnessError, ValueError):
    """A setting is unknown, malformed or not the run's own: change it, or start another run."""


class BusyError(HarnessError):
    """Another live process holds the directory: wait for it, or use another directory."""


class DamageError(HarnessError):
    """A file of a run is damaged: repair the line that is named, or restore the file."""


class CheckpointError(HarnessError):
    """No checkpoint serves: choose other steps."""


class DamagedCheckpointError(CheckpointError):
    """A checkpoint holds other bits than were saved: go on from the one before, as is said."""


class NotFiniteError(HarnessError):
    """The loss or a gradient is not finite: look at the step that is named, then skip or change."""
