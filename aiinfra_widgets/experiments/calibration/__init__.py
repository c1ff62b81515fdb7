"""Calibration: what this machine can do, measured in a minute on real ranks."""
