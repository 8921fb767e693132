"""What a miniature can do, skill by skill: draw, edit, keep, see, correct.

A score of whole pictures says that something failed; this says what. `probes` sets the tasks, with
right pictures by the exact renderer around the one step that is asked of the model; `ask` puts them
to it; `judge` looks at what it did; `command` counts, and `guidance` finds the guidance with which
it does best.
"""
