"""What detours and deliberate mistakes of a real data set draw instead, unless the settings say.

Things that can stand, lie or sit almost anywhere, of a size that an editor can add and remove, and
colours that a judge can tell apart.
"""

CLASSES = (
    "apple",
    "backpack",
    "ball",
    "balloon",
    "basket",
    "bench",
    "bicycle",
    "bird",
    "book",
    "bottle",
    "bowl",
    "bucket",
    "butterfly",
    "cake",
    "candle",
    "cat",
    "chair",
    "clock",
    "cup",
    "dog",
    "drum",
    "duck",
    "flower",
    "guitar",
    "hat",
    "horse",
    "kite",
    "lamp",
    "lantern",
    "pumpkin",
    "rabbit",
    "shoe",
    "stool",
    "suitcase",
    "table",
    "teapot",
    "tree",
    "umbrella",
    "vase",
    "wheelbarrow",
)
ATTRIBUTES = {
    "color": (
        "red",
        "orange",
        "yellow",
        "green",
        "blue",
        "purple",
        "pink",
        "brown",
        "black",
        "white",
        "gray",
    )
}
