"""What may be written to a terminal."""


def printable(text: str) -> str:
    """The text with every control character but tab and newline spelled out.

    A model's words never steer a terminal.
    """
    shown = []
    for character in text:
        if character.isprintable() or character in "\t\n":
            shown.append(character)
        else:
            shown.append(character.encode("unicode_escape").decode())
    return "".join(shown)
