"""Sample data: an account that looks as if somebody had worked with it for eight weeks, and its removal.

What it tells comes from the practice site and from code that workers use, so that a real run, build or scan goes on
where the history ends. `account` makes and removes it; `crawls`, `sites`, `reports` and `price_list` know what
happened, and `past` writes it down as workers would have left it.
"""
