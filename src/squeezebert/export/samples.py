"""Built-in neutral texts: compared when a checkpoint brings no evaluation rows, and kept in every manifest.

They vary in length, case, punctuation and script, so that a device that reads any of it differently is found out.
"""

TEXTS = (
    "The library opens at nine and closes at six.",
    "Two plus two is four.",
    "She put the kettle on and read the letter again.",
    "Please leave the parcel with the neighbour at number 12.",
    "The bridge was painted green last summer; nobody remembers why.",
    "Rain is expected in the north, with some sun in the afternoon.",
    "How long does the ferry take?",
    "A short note.",
    "We counted 1,482 birds between 06:30 and 08:15, most of them gulls.",
    "THE TRAIN NOW ARRIVING AT PLATFORM 3 IS THE DELAYED SERVICE FROM THE COAST.",
    "He asked whether the second edition differs from the first, and in what.",
    "Stir the flour into the butter, add the milk slowly, and wait until it thickens.",
    "It is neither the best nor the worst of the five.",
    "My phone number changed, so write to me instead.",
    "Café prices went up by 4 % – again.",
    "Das Fenster bleibt über Nacht geschlossen.",
    "La réunion est reportée à jeudi.",
    "天気は晴れです。",
    "Встреча начнётся в десять.",
    "See you there 🙂🚲",
    "ok",
    "What would you do with an afternoon, a map and no plan at all?",
    "The form has three pages: sign the last one, keep the first, and send the other two back within ten days.",
    "In the old part of the town the streets are so narrow that the post is still brought on foot, and the man who "
    "brings it knows every door, every dog and most of the stories that belong to them.",
    "No.",
    "They moved the meeting from Tuesday to Thursday, then back to Tuesday, and in the end held it by letter.",
    "Turn left after the mill, follow the stream for half a mile, and you will see the gate.",
    "The report lists what was bought, what it cost, and who signed for it.",
    "e-mail: info@example.org, web: www.example.org/help?page=2",
    "Half of the seats were empty when the music began.",
    "I have been learning to draw hands; they still look like gloves.",
    "The new lamp is brighter than the old one but uses less power, which the shop explained with a small chart.",
)
# How many of them a manifest keeps with their answers
KEPT = 8
