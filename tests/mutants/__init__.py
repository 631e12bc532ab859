"""Measures the power of the tests.

`make mutants SEED=1` changes one place of the code at a time and runs the tests that execute the changed line. The
score is the share of changes that make a test fail. CONTRIBUTING.md explains how to use it.
"""

#: Variable that names the folder into which processes write the lines that they execute.
LINES_FOLDER = "SYNCBLOCKS_LINES"
#: Variable with the process id of the pytest process that started a child process.
WORKER = "SYNCBLOCKS_LINES_WORKER"
