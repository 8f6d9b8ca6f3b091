"""The address of models on disk that published scripts use: ``from usema.bundle import read_bundle, write_bundle``.

It stays when the room behind it changes; inside this project the files of ``usema.models`` are imported themselves.
"""

from .models.bundle import METADATA_FILE, WEIGHTS_FILE, Bundle, read_bundle
from .models.bundle_writing import change_metadata, write_bundle

__all__ = ["METADATA_FILE", "WEIGHTS_FILE", "Bundle", "change_metadata", "read_bundle", "write_bundle"]
