"""End-to-end harness of the Kubernetes tutorial "Fine Parallel Processing Using a Work Queue"."""
