"""Risk scans: the kind of execution that reads a document and stores the risks in it."""
