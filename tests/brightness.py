"""A scorer that any picture can please: how bright it is, in [0, 1]."""

from collections.abc import Sequence

from staged.roles import Rated, Rating


class Brightness:
    """Rates pictures by their mean."""

    name = "brightness"

    def rate(self, pictures: Sequence[Rated]) -> list[Rating]:
        return [Rating(value=float(one.pixels.mean()) / 255) for one in pictures]


class Fading(Brightness):
    """Likes the pictures of its first call, and none of later ones."""

    def __init__(self) -> None:
        self._calls = 0

    def rate(self, pictures: Sequence[Rated]) -> list[Rating]:
        self._calls += 1
        return [Rating(value=1.0 if self._calls == 1 else 0.1) for _ in pictures]


class Choosy(Brightness):
    """Rates every fourth picture, and says why not the others, or nothing that is a number."""

    def rate(self, pictures: Sequence[Rated]) -> list[Rating]:
        reasons = [Rating(value=None, reason="too dark"), Rating(value=float("nan"))]
        others = [Rating(value=0.5), *reasons, reasons[0]]
        return [others[place % 4] for place in range(len(pictures))]


def nothing_that_rates() -> object:
    return object()
