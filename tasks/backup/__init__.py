"""Backups: writing one while the service runs, putting one into an empty installation."""
