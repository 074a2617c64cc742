"""The errors a caller may want to catch; users' other mistakes raise ValueError."""


class FlowsrError(Exception):
    """Base of the errors of this package."""


class CheckpointError(FlowsrError, ValueError):
    """A file of weights is damaged, of another architecture, or holds more than tensors."""


class ImageError(FlowsrError, ValueError):
    """An image file cannot be read, or holds something flowsr cannot use."""


class NonFiniteError(FlowsrError, ArithmeticError):
    """Training was stopped because too many steps in a row had a loss or gradient that is not finite."""


class DownloadError(FlowsrError, OSError):
    """A released file of weights cannot be fetched."""
