"""placeholder"""


def distil(spec, machine, observed):
    return {}
