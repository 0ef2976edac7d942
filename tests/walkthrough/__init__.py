"""Executes the notebooks as a reader would, in order and with the network closed, and writes them as pages.

It stands beside the tests and not in `grafeat`, since it runs this repository's notebooks: who installs the
package has none. `make walkthrough` and tests/test_notebooks.py share it.
"""
