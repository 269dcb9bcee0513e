"""Every exception of the project.

Two families. ``AimcError`` and its children say that the caller's input is wrong or beyond what is built, and what
to change; the command line prints them without a traceback and exits with 2. ``InternalError`` and its children say
that this project is wrong: please report them.
"""


class AimcError(Exception):
    """Something the user can mend: the message says what, where, why and what to change."""


class UnitError(AimcError, ValueError):
    """A quantity without its unit, with the wrong one, or not a number. (A ValueError, so pydantic reports it.)"""


class SpecError(AimcError):
    """A chip spec that does not hold: carries file, line and column of each fault in its message."""


class CaptureError(AimcError):
    """The network could not be captured by torch.export, or was given in training mode."""


class UnsupportedOpError(AimcError):
    """An operation without a place on the chip: names op, module path and source line."""


class BatchError(AimcError):
    """The named batch dimension is not one: samples of a batch influence each other."""


class RuleError(AimcError):
    """A rule whose pattern matches nothing, or whose settings are unknown."""


class CalibrationError(AimcError):
    """Input ranges are missing, or the calibration data cannot set them."""


class CalibrationWarning(UserWarning):
    """Data that the chip's converters cut: it runs, and what is lost is said."""


class DoesNotFitError(AimcError):
    """The network does not fit the chip; ``reason`` is the value that says by how much and what would help."""

    def __init__(self, reason: object) -> None:
        super().__init__(str(reason))
        self.reason = reason


class NotBuiltError(AimcError):
    """The chip asks for physics that this version does not model; mapping and timing still work."""


class ArtifactError(AimcError):
    """A compiled artifact that is damaged, incomplete or from another format version."""


class RecipeError(AimcError):
    """A training recipe with unknown or impossible settings."""


class TrainingError(AimcError):
    """A network that cannot be prepared for hardware-aware training, or not as asked."""


class DataError(AimcError):
    """Evaluation or calibration data of the wrong form."""


class SweepError(AimcError):
    """A sweep whose definition, folder, files or cells do not hold."""


class TextFormError(AimcError):
    """A text form of a level that does not parse: carries the line."""


class MissingDependencyError(AimcError):
    """An optional package is needed: the message says how to install it."""


class InternalError(Exception):
    """A fault of this project, not of its input: please report it."""


class VerificationError(InternalError):
    """A level of the compiler broke one of its own invariants."""
