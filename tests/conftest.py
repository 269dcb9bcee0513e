"""Makes the modules beside this file (``chips_by_hand``) importable from every test folder."""
