"""Reading documents: languages, engines, and the child program that opens what nobody trusts.

`reader` is the program; the rest of it runs inside of that process, but for `languages`, which says what is installed,
and `protocol`, which both sides speak. See docs/decisions/0033.
"""

from adapters.ocr.languages import UnknownLanguages, gather, has_engine, installed

__all__ = ["UnknownLanguages", "gather", "has_engine", "installed"]
