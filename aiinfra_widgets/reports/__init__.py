"""Reports: a notebook with parameters in; the executed notebook, one offline page and `results.json` out.

This package imports nothing heavy by itself: `results` is used inside a lab's kernel, the rest by the command line.
"""
