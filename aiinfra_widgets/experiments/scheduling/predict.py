"""placeholder until the simulation is connected"""

from ...errors import ModelInputError


def predict(spec, machine, **over):
    raise ModelInputError("not yet")
