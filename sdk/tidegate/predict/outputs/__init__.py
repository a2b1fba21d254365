"""From finished parts to the one file that was asked for: one module a format."""

from tidegate.predict.outputs.writing import Blocks, write_output, write_side_file

__all__ = ["Blocks", "write_output", "write_side_file"]
