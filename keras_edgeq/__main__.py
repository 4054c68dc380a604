"""`python -m keras_edgeq` is the `keras-edgeq` command."""

import sys

from keras_edgeq_cli import main

sys.exit(main())
