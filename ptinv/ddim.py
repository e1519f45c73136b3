"""Makes `import ptinv.ddim` another name for `ptinv.core.ddim`."""

import sys

from .core import ddim

sys.modules[__name__] = ddim
