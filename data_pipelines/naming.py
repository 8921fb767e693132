"""Whether a text names a thing, in the singular or in the plural."""

import re
from functools import lru_cache
from typing import Final

_IRREGULAR: Final = {
    "man": "men",
    "child": "children",
    "person": "people",
    "mouse": "mice",
    "goose": "geese",
    "foot": "feet",
    "tooth": "teeth",
}


def names(name: str, *texts: str) -> bool:
    """Whether a class is named in one of some texts, in one of the plurals that English has.

    Args:
        name: Singular: `knife`, `fisherman`.
        texts: Whatever is said.
    """
    return any(_word(name).search(text) for text in texts)


@lru_cache(maxsize=4096)
def _word(name: str) -> re.Pattern[str]:
    forms = {name, f"{name}s", f"{name}es"}
    if name.endswith("y"):
        forms.add(f"{name[:-1]}ies")
    for end in ("f", "fe"):
        if name.endswith(end):
            forms.add(f"{name.removesuffix(end)}ves")
    for one, several in _IRREGULAR.items():
        if name.lower().endswith(one):
            forms.add(f"{name[: -len(one)]}{several}")
    said = "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))
    # Not \b: a name may end in a sign that is no letter.
    return re.compile(rf"(?<!\w)(?:{said})(?!\w)", re.IGNORECASE)
