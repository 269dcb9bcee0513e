"""Makes the modules beside this file (``chips_by_hand``, ``networks``) importable from every test folder.

Test processes run side by side, so each computes on one thread.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
