"""Looking into uploaded files, in a process of its own: what they are, how large, and what they look like.

The decoder decides what a file is, not its name or its first bytes. `inspection.py` is the door for everybody else; the
other modules run in the child, which holds no credentials and imports neither settings nor models.
"""
