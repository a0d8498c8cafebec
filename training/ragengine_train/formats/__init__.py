"""Questions in the files of other projects: what each file holds, and which of its entries cannot be used."""

from ragengine_train.formats.detect import FORMATS, FormatName, read_records
from ragengine_train.formats.record import Context, Dropped, Record

__all__ = ["FORMATS", "Context", "Dropped", "FormatName", "Record", "read_records"]
