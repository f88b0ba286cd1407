"""`python -m workflow_runner.cli` is the command `workflow`."""

import sys

from workflow_runner.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
