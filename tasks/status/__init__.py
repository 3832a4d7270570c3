"""The state of the service: probes of what it is made of, and what follows from what they find."""
