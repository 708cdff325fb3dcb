"""Plausible text without end: sentences from a small grammar, the same for a seed.

The planner hides needles in it where a user brings no text. It says nothing, but
in the order, the words and the punctuation of English.
"""

from __future__ import annotations

import random

_PEOPLE = (
    "the gardener", "her neighbour", "an old teacher", "the young clerk", "a fisherman",
    "the widow", "two students", "the baker's son", "our guide", "the surveyor",
    "a travelling musician", "the harbour master", "my uncle", "the librarian",
)  # fmt: skip
_VERBS = (
    "repaired", "remembered", "described", "carried", "forgot", "painted", "counted",
    "studied", "sold", "found", "measured", "borrowed", "drew", "kept", "examined",
)  # fmt: skip
_ADJECTIVES = (
    "wooden", "narrow", "quiet", "broken", "bright", "heavy", "distant", "small",
    "unfinished", "northern", "dusty", "familiar", "pale", "curious", "ordinary",
)  # fmt: skip
_THINGS = (
    "bridge", "ledger", "lantern", "orchard", "map", "clock", "staircase", "window",
    "letter", "boat", "mill", "garden wall", "collection of stones", "violin", "kettle",
    "path along the river", "row of poplars", "market stall", "photograph", "well",
)  # fmt: skip
_PLACES = (
    "behind the station", "near the mill", "in the upper village", "on the far shore",
    "beside the church", "at the end of the lane", "under the railway arch",
    "in the back room", "by the ferry", "across the square", "above the bakery",
)  # fmt: skip
_TIMES = (
    "in the morning", "before the rain came", "late in autumn", "after supper",
    "during the long winter", "on market days", "one afternoon in June", "as usual",
    "for the second time", "while the shops were closed", "long before the war",
)  # fmt: skip
_REASONS = (
    "because nobody else would do it", "although the work was slow", "to everyone's surprise",
    "without saying a word", "which took most of the day", "and nobody asked why",
    "as the weather allowed", "for reasons of their own", "with great patience",
)  # fmt: skip
_TOPICS = (
    "Wood", "Slate", "Wool", "Salt", "Glass", "Paper", "Barley", "Iron", "Honey", "Ice",
)  # fmt: skip
_FACTS = (
    "was brought down the valley by cart until the railway came",
    "had to be dried for several months before it could be used",
    "was taxed by weight, and the scales were often disputed",
    "became cheaper every year, so that the older workshops closed one after another",
    "was stored in long sheds with openings on the side away from the wind",
    "is still made there, though only a few families know how",
    "needed more water than the stream could give in a dry summer",
)  # fmt: skip


def _sentence(pick: random.Random) -> str:
    thing = f"the {pick.choice(_ADJECTIVES)} {pick.choice(_THINGS)}"
    forms = (
        lambda: f"{pick.choice(_PEOPLE)} {pick.choice(_VERBS)} {thing} {pick.choice(_PLACES)}",
        lambda: (
            f"{pick.choice(_TIMES)}, {pick.choice(_PEOPLE)} {pick.choice(_VERBS)} "
            f"{thing}, {pick.choice(_REASONS)}"
        ),
        lambda: f"{thing} {pick.choice(_PLACES)} belonged to {pick.choice(_PEOPLE)}",
        lambda: f"{pick.choice(_TOPICS)} {pick.choice(_FACTS)}",
        lambda: (
            f"{pick.choice(_PLACES)} there was {thing.replace('the ', 'another ', 1)}, and "
            f"{pick.choice(_PEOPLE)} {pick.choice(_VERBS)} it {pick.choice(_TIMES)}"
        ),
    )
    text = pick.choice(forms)()
    return text[0].upper() + text[1:] + "."


def filler(seed: int, characters: int) -> str:
    """Text of at least `characters` characters in paragraphs; equal for equal seeds."""
    pick = random.Random(seed)
    paragraphs: list[str] = []
    size = 0
    while size < characters:
        paragraphs.append(" ".join(_sentence(pick) for _ in range(pick.randint(3, 7))))
        size += len(paragraphs[-1]) + 2
    return "\n\n".join(paragraphs) + "\n"
