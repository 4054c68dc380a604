"""Start the child: `python boot.py`, a script, so that nothing of the package's root is imported.

`keras_edgeq/__init__.py` imports TensorFlow, which takes seconds and is not needed here. A bare
package of the same name takes its place; the modules below it are imported as anywhere.
"""

import os
import sys
import types

if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    # The folder of this script, whose modules are not top-level modules.
    sys.path[:] = [part for part in sys.path if os.path.abspath(part) != here]
    root = types.ModuleType("keras_edgeq")
    root.__path__ = [os.path.dirname(os.path.dirname(here))]
    sys.modules["keras_edgeq"] = root

    from keras_edgeq.runtime.child.serve import main

    main()
