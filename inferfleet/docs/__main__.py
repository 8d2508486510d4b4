"""`python -m inferfleet.docs [REPOSITORY]`: writes the reference pages again."""

import sys
from pathlib import Path

from inferfleet.docs.reference import main

main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
