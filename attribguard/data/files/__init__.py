"""Reading files that may not be trusted: names, tables, pictures, and an index of them."""

from attribguard.data.files.picture_file import read_mask, read_picture

__all__ = ["read_mask", "read_picture"]
