# TensorFlow resolves much of its API lazily and ships no types of its own. Everything under it is
# Any here, so that pyright spends its findings on this package.
from typing import Any

def __getattr__(name: str) -> Any: ...
