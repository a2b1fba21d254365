"""Hide what foreign native code prints. TensorFlow and MLIR write to the file descriptors, past `sys.stdout`."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO


@contextmanager
def foreign_output_hidden(*, shown: bool = False) -> Iterator[TextIO]:
    """Send descriptors 1 and 2 elsewhere, and yield a stream to the real standard error for our own words.

    Args:
        shown: let it through, but to standard error, so that standard output holds results alone.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    real_out, real_error = os.dup(1), os.dup(2)
    with tempfile.TemporaryFile() as hidden, os.fdopen(os.dup(real_error), "w", encoding="utf-8") as say:
        try:
            os.dup2(real_error if shown else hidden.fileno(), 1)
            os.dup2(real_error if shown else hidden.fileno(), 2)
            yield say
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(real_out, 1)
            os.dup2(real_error, 2)
            os.close(real_out)
            os.close(real_error)
