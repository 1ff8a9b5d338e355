"""The container image, the deployment files, and what is installed from a wheel."""
