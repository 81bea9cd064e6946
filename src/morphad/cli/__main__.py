"""`python -m morphad.cli`."""

import sys

from morphad.cli import main

sys.exit(main())
