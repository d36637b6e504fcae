"""The tabs: one module each with `blueprint` and `NAV`, found by a scan. HTML only; what they show is in views/."""
