"""Settings of the JupyterLab that `make lab` starts: nothing is fetched, and nobody else on the network gets in."""

import os

c = get_config()  # type: ignore[name-defined]  # noqa: F821 - Jupyter provides it

# Loopback only. The token stays as Jupyter makes it: a new one for each start, in the address that is printed.
c.ServerApp.ip = "127.0.0.1"
# In a container the user often is root, where Jupyter refuses to start unless told.
c.ServerApp.allow_root = hasattr(os, "geteuid") and os.geteuid() == 0

# No news, no look for updates, no catalogue of extensions: JupyterLab asks the internet for each of them.
c.LabApp.news_url = None
c.LabApp.check_for_updates_class = "jupyterlab.NeverCheckForUpdate"
c.LabApp.extension_manager = "readonly"
