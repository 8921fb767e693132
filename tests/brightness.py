"""A scorer that any picture can please: how bright it is, in [0, 1]."""

from collections.abc import Sequence

from staged.roles import Rated, Rating


class Brightness:
    """Rates pictures by their mean."""

    name = "brightness"

    def rate(self, pictures: Sequence[Rated]) -> list[Rating]:
        return [Rating(value=float(one.pixels.mean()) / 255) for one in pictures]


def nothing_that_rates() -> object:
    return object()
