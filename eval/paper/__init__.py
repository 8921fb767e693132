"""The tables and figures of a study: cells that were drawn, and pages that are written of them.

`settings` says what there is to be, `cell` reads what was drawn of a cell from the lines of its
samples, `tables`, `figures` and `pictures` show it, `study` puts that in order, and `markdown` and
`web` write it. Nothing here draws or trains; `staged paper` does.
"""
