"""Reading documents: languages, engines, and the child program that opens what nobody trusts.

`reader` is the program; the rest runs inside of that process, but for `languages`, which says what is installed, and
`protocol`, which both sides speak. Nothing is imported here, because the program starts for every document and settings
alone take it a fifth of a second. See docs/decisions/0033.
"""
