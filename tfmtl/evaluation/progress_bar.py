"""A progress bar for long rankings."""

from __future__ import annotations

from tfmtl._keras import keras


class ProgressBar:
    """Shows the number of ranked queries in a Keras progress bar: `evaluate(..., progress=ProgressBar())`.

    Example:
        >>> bar = ProgressBar()
        >>> bar(1, 1)
        1/1 [==============================] - ...
    """

    def __init__(self) -> None:
        self._bar: keras.utils.Progbar | None = None

    def __call__(self, done: int, total: int) -> None:
        """Show that `done` of `total` queries are ranked; once all are, the next call starts a new bar."""
        if self._bar is None:
            self._bar = keras.utils.Progbar(total, unit_name="query")
        self._bar.update(done)
        if done >= total:
            self._bar = None
