"""Build runners: bubblewrap on this machine, a Docker Engine, or Kubernetes jobs, by settings."""
