"""The explorer in a real browser: inside JupyterLab, and as a file with the network off."""
