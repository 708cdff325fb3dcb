"""Exceptions of the runtime and the compiler."""


class Error(RuntimeError):
    """Base of all errors of this package; the message ends with the cure."""


class CompileError(Error, ValueError):
    """moa-compile refused its input."""


class InvalidArgumentError(Error, ValueError):
    """A call was wrong."""


class WrongTypeError(Error, TypeError):
    """An argument is of a kind that the call does not take."""


class OutOfPagesError(Error, MemoryError):
    """The page pool is too small; the cache is as it was."""


class OutOfMemoryError(Error, MemoryError):
    """The operating system or the device refused memory."""


class IncompatibleError(Error):
    """The artifact is for another version or machine."""


class CorruptError(Error, ValueError):
    """The artifact or snapshot is damaged."""


class ArtifactIOError(Error, OSError):
    """A file cannot be read or written."""


class ModelFileError(Error, OSError):
    """A model's files are missing, or transformers cannot read them."""


class OutOfRangeError(Error, ValueError):
    """A sequence is longer than the artifact serves."""


class UnsupportedError(Error, NotImplementedError):
    """Valid, but not provided by this artifact."""


class NoDeviceError(Error):
    """No driver, or no such device."""


class DeviceError(Error):
    """The driver of a device refused a call."""


class NotResidentError(Error, ValueError):
    """Keys that are needed were given up."""


_BY_CODE = {
    1: InvalidArgumentError,
    2: OutOfPagesError,
    3: OutOfMemoryError,
    4: IncompatibleError,
    5: CorruptError,
    6: ArtifactIOError,
    7: OutOfRangeError,
    8: UnsupportedError,
    9: NoDeviceError,
    10: DeviceError,
    11: NotResidentError,
}


def from_status(code: int, message: str) -> Error:
    """The exception for a status code of moa/runtime.h."""
    return _BY_CODE.get(code, Error)(message)
