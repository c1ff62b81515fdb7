"""The machine that predictions are made from and ranks are asked of. Light: a command that refuses asks it, too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..machine.devices import found
from ..machine.profile import Machine, newest
from ..runs.home import machines_folder

if TYPE_CHECKING:
    from .place import Place


def this_machine(place: Place | None = None) -> Machine:
    """Return the newest profile that calibration wrote on this machine, else what is found here, uncalibrated.

    Args:
        place: Where the ranks are to be: hosts that were calibrated together have a profile of their own.
    """
    here = found()
    if place and place.profiles and (known := newest(machines_folder(), place.profiles)):
        from .hosts import Hosts  # only who has hosts pays for it

        return place.told(known) if isinstance(place, Hosts) else known
    return newest(machines_folder(), here.id.rsplit("-", 2)[0]) or here
