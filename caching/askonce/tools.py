"""For those who build tools around a cache: moving entries between stores, and what URLs and words mean.

The `askonce` command is made of these.
"""

from __future__ import annotations

from askonce._explain import Explanation
from askonce._export_file import TransferError
from askonce._exporting import Exported, export_entries
from askonce._importing import Imported, import_entries, namespace_of
from askonce._options import store_urls
from askonce._units import seconds, size
from askonce.stores.urls import folder_of

__all__ = [
    "Explanation",
    "Exported",
    "Imported",
    "TransferError",
    "export_entries",
    "folder_of",
    "import_entries",
    "namespace_of",
    "seconds",
    "size",
    "store_urls",
]
