"""An extension of IPython that every kernel of this environment loads first (`etc/ipython/ipython_kernel_config.json`).

ipykernel 7.0 to 7.4 writes replies to a socket past the stream that reads requests from it, and so swallows the wake-up of a
request that comes at that moment: its cell stands at [*] until something else connects (ipykernel issue 1554). The fix of
ipykernel's pull request 1529 is to write through the stream; here it is done from outside, before the first request is read.
"""

from __future__ import annotations

from typing import Any


def load_ipython_extension(shell: Any) -> None:
    """Let the kernel of `shell` send its replies through its stream; where ipykernel does so itself, or has no such thread, do nothing."""
    kernel = getattr(shell, "kernel", None)
    stream, thread = getattr(kernel, "shell_stream", None), getattr(kernel, "shell_channel_thread", None)
    manager = getattr(thread, "manager", None)
    if stream is None or manager is None or getattr(manager, "_shell_socket", None) is not stream.socket:
        return
    manager._shell_socket = (
        stream  # used for one thing only: `send_multipart`, in the thread that the stream belongs to
    )
