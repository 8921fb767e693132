"""The server: trajectories over HTTP, watched while they come, and steered.

What it needs beside the rest comes with `pip install staged[serve]`; `staged.server.command` starts
it and says so where that is missing.
"""
