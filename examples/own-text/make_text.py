"""Writes en.txt and es.txt: line n of one is the translation of line n of the other.

A grammar of a few rules makes the sentences. To translate them, a model must learn words, their order ("red cats",
"gatos rojos"), and agreement in gender and number ("two red cows", "dos vacas rojas"). It never sees most of the
combinations: 1,600 are possible, and 320 are written.

    python make_text.py
"""

import random
from pathlib import Path

# English, Spanish.
OPENINGS = [
    ("I see", "Veo"),
    ("We have", "Tenemos"),
    ("They want", "Quieren"),
    ("She paints", "Ella pinta"),
]
# English singular, English plural, Spanish singular, whether the Spanish noun is feminine.
ANIMALS = [
    ("cat", "cats", "gato", False),
    ("dog", "dogs", "perro", False),
    ("horse", "horses", "caballo", False),
    ("duck", "ducks", "pato", False),
    ("cow", "cows", "vaca", True),
    ("hen", "hens", "gallina", True),
    ("turtle", "turtles", "tortuga", True),
    ("butterfly", "butterflies", "mariposa", True),
]
# English, Spanish masculine, Spanish feminine; the plural adds an s.
COLOURS = [
    ("red", "rojo", "roja"),
    ("white", "blanco", "blanca"),
    ("black", "negro", "negra"),
    ("yellow", "amarillo", "amarilla"),
    ("small", "pequeño", "pequeña"),
]
# English, Spanish masculine, Spanish feminine, whether plural.
COUNTS = [
    ("a", "un", "una", False),
    ("one", "un", "una", False),
    ("two", "dos", "dos", True),
    ("three", "tres", "tres", True),
    ("four", "cuatro", "cuatro", True),
    ("five", "cinco", "cinco", True),
    ("six", "seis", "seis", True),
    ("seven", "siete", "siete", True),
    ("eight", "ocho", "ocho", True),
    ("nine", "nueve", "nueve", True),
]


def pairs() -> list[tuple[str, str]]:
    """Every sentence of the grammar with its translation."""
    made: list[tuple[str, str]] = []
    for opening, apertura in OPENINGS:
        for count, masculine, feminine, plural in COUNTS:
            for colour, rojo, roja in COLOURS:
                for singular, plurals, noun, is_feminine in ANIMALS:
                    s = "s" if plural else ""
                    english = f"{opening} {count} {colour} {plurals if plural else singular}."
                    number, adjective = (feminine, roja) if is_feminine else (masculine, rojo)
                    made.append((english, f"{apertura} {number} {noun}{s} {adjective}{s}."))
    return made


if __name__ == "__main__":
    here = Path(__file__).parent
    chosen = random.Random(1).sample(pairs(), 320)
    (here / "en.txt").write_text("".join(f"{english}\n" for english, _ in chosen), encoding="utf-8")
    (here / "es.txt").write_text("".join(f"{spanish}\n" for _, spanish in chosen), encoding="utf-8")
