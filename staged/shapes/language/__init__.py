"""The miniature world's language: everything that is said in it, in both directions.

| text | write | read |
|---|---|---|
| prompt | `write_prompt(request)` | `read_prompt(text)` |
| description of a scene | `describe(spec)` | `read_description(text)` |
| instruction of a plan | `write_edits(edits)` | `read_edits(text)` |
| instruction of a refinement | `write_edits(edits, "refinement")` | the same |
| critique of a plan | `write_plan_critique(critique)` | `read_plan_critique(text)` |
| critique of a sketch | `write_sketch_critique(faults)` | `read_sketch_critique(text)` |

Reading is strict: a text that is not exactly what would be written is a `GrammarError`.
"""
