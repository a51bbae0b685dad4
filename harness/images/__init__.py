"""Where the container images of a run come from."""
