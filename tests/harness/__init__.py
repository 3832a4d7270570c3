"""What tests stand on: servers, databases, our own processes, clients. Fixtures over it are in `tests/conftest.py`."""
