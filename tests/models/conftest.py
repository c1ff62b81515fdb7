"""Units for the dimension tests: a model that takes plain numbers takes pint quantities too."""

import pint
import pytest


@pytest.fixture(scope="session")
def u():
    registry = pint.UnitRegistry()
    registry.define("flop = [arithmetic]")
    registry.define("USD = [money]")
    registry.define("gCO2e = [emission]")
    return registry
