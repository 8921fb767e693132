"""The words that the miniature's tokenizer keeps whole.

A fixed list, not the grammar itself: sentences may be reworded without making trained
checkpoints unreadable. Words that are not listed still encode, in pieces.
"""

from __future__ import annotations

from collections.abc import Iterator

from staged.shapes.world.scene import COLORS, KINDS

_WORDS = """
a an the and or of in on at to as is are be it its there than that this which one each both no not
with without by from for but should still only all any has have does do nothing else something
photo image picture plan prompt scene canvas object objects shape shapes
two three four five six zero many count number times same other another
small large size color colour
left right above below top bottom middle center centre corner side next near between
add change replace remove swap move make draw put turn keep
missing extra wrong fits matches says asks show shows come yet drawn good fine needs place
describe what where how yes
ripe banana ripened tomato grass sky snow coal blood sun moon night lemon carrot pumpkin orange
chocolate milk flamingo eggplant leaf ocean fire truck strawberry plum cherry raven swan crow
tricycle bicycle car wheels legs cat dog spider insect triangle sides hand fingers eyes face
clear sea frog lavender piglet coffee clover leaves corners empty one seven eight nine instead
already stand stands stay only several also
traffic light stop sign season seasons year week days coin hours clock wings bird dice
"""


def vocabulary() -> Iterator[str]:
    """Lines to learn merges from; each word stands in every position it can take."""
    words = [*KINDS, *(kind + "s" for kind in KINDS), "crosses", *COLORS, *_WORDS.split()]
    for word in words:
        for _ in range(40):
            yield f"{word} {word} {word}, {word}; {word}."
    for word in words:
        yield f"<ins>{word} {word}</ins><des>{word} {word}</des>"
        yield f"<inspect>{word} {word}</inspect><verdict>accept</verdict>"
        yield f"<inspect>{word} {word}</inspect><verdict>revise</verdict>"
        yield f"<refine>{word} {word}</refine>"
