"""Start the child: `python boot.py`, a script, so that nothing of the package's root is imported.

`keras_edgeq/__init__.py` imports TensorFlow, which takes seconds and is not needed here. A bare
package of the same name takes its place; the modules below it are imported as anywhere.
"""

import os
import sys
import types

if __name__ == "__main__":
    sys.path.pop(0)  # the folder of this script, whose modules are no top-level ones
    root = types.ModuleType("keras_edgeq")
    root.__path__ = [os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))]
    sys.modules["keras_edgeq"] = root

    from keras_edgeq.runtime.child.serve import main

    main()
