"""The words of the generated language: eight topics, opinions of both signs, people, and how they are written."""
from __future__ import annotations


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# Things (the plural is the singular with an s), words of praise, words of blame, and what people do with the things.
TOPICS = {
    "food": {
        "noun": _split("soup bread cake stew salad muffin dumpling pancake noodle sausage omelette biscuit sauce burger steak roast "
                       "pie pizza waffle dessert"),
        "pos": _split("tasty delicious juicy crisp creamy savoury tender flavoursome mouthwatering"),
        "neg": _split("bland stale greasy burnt soggy salty rancid overcooked tasteless"),
        "verb": _split("cooked tasted baked fried ordered seasoned swallowed grilled")},
    "film": {
        "noun": _split("film movie plot script scene trailer sequel musical thriller cartoon screenplay character dialogue western "
                       "ending comedian director actor stunt studio"),
        "pos": _split("gripping witty suspenseful heartfelt believable moving stylish spellbinding cinematic"),
        "neg": _split("predictable wooden corny contrived overlong cheesy implausible plodding shallow"),
        "verb": _split("watched filmed directed screened reviewed edited streamed rehearsed")},
    "music": {
        "noun": _split("song concert album guitar violin drum piano orchestra ballad singer trumpet flute lyric rhythm tune band anthem "
                       "encore cello duet"),
        "pos": _split("melodic catchy soulful tuneful harmonious rousing lyrical groovy haunting"),
        "neg": _split("shrill tinny discordant screechy monotone jarring tuneless droning clanging"),
        "verb": _split("played sang recorded composed hummed performed strummed tuned")},
    "sport": {
        "noun": _split("team goal striker referee tournament stadium racket marathon sprint goalkeeper cup defender league trainer "
                       "opponent tackle relay captain arena medal"),
        "pos": _split("athletic agile tireless unbeaten sporting nimble skilful disciplined energetic"),
        "neg": _split("clumsy sluggish unfit defeated reckless injured hopeless toothless lethargic"),
        "verb": _split("scored kicked tackled coached trained defended dribbled won")},
    "travel": {
        "noun": _split("hotel train flight island hostel airport suitcase ticket harbour museum tour guide passport cabin boat resort "
                       "castle map campsite souvenir"),
        "pos": _split("scenic sunny spacious picturesque welcoming punctual hospitable panoramic unspoilt"),
        "neg": _split("overcrowded delayed noisy cramped overpriced dingy shabby dirty cancelled"),
        "verb": _split("booked toured boarded reached packed photographed crossed explored")},
    "garden": {
        "noun": _split("rose tulip lawn hedge orchard fern shrub seedling meadow pond flowerbed vine oak orchid greenhouse bulb "
                       "sunflower weed path fountain"),
        "pos": _split("lush blooming fragrant leafy fertile verdant thriving blossoming evergreen"),
        "neg": _split("withered barren thorny wilted overgrown mouldy parched infested rotten"),
        "verb": _split("planted watered pruned weeded mowed raked dug picked")},
    "school": {
        "noun": _split("lesson exam schoolbook lecture textbook essay riddle classroom timetable course exercise tutor chapter "
                       "notebook seminar diploma professor question grade assignment"),
        "pos": _split("instructive clear thoughtful educational insightful stimulating informative scholarly rigorous"),
        "neg": _split("confusing pointless tedious muddled dry unfair rambling incoherent outdated"),
        "verb": _split("studied taught graded memorised learned explained revised copied")},
    "computers": {
        "noun": _split("laptop keyboard program server browser printer screen app password database website router tablet network update "
                       "folder file processor robot modem"),
        "pos": _split("fast handy responsive stable secure wireless customisable efficient modern"),
        "neg": _split("buggy laggy glitchy slow insecure crashing obsolete unresponsive corrupted"),
        "verb": _split("installed coded debugged rebooted downloaded programmed hacked upgraded")},
}
# Praise and blame that fit everything.
PRAISE = _split("good great wonderful excellent lovely superb brilliant pleasant delightful splendid fine charming perfect marvellous "
                "fantastic remarkable amazing impressive enjoyable terrific")
BLAME = _split("bad awful terrible dreadful horrible poor nasty disappointing dull mediocre unpleasant lousy dismal miserable annoying "
               "boring ugly worthless pathetic atrocious")
WOMEN = _split("maria anna julia sofia emma laura nina clara olga helen ruth lucy alice eva ida rosa diana irene martha vera")
MEN = _split("peter david thomas paul martin john simon felix oscar victor henry george robert daniel leo jonas adam bruno karl hugo")
ROLES = _split("neighbour visitor student teacher farmer doctor nurse lawyer baker painter writer driver soldier sailor pilot dentist "
               "plumber tailor reporter customer")
FEELINGS = {"singular": _split("likes loves wants needs remembers prefers mentions admires"),
            "plural": _split("like love want need remember prefer mention admire")}
DEALINGS = _split("thanked invited called helped visited met followed blamed praised hired")
DEGREES = _split("very really quite rather truly extremely so fairly")
# What people do after a good or a bad experience: only in the text for pretraining, never in a labelled sentence.
GLAD = ("we came back the next day", "we told all our friends", "we smiled", "we stayed until the end", "we will come again",
        "we clapped", "we said thank you", "we were happy")
SORRY = ("we left early", "we asked for our money back", "we complained", "we will not come again", "we went home angry",
         "we were sad", "we wrote a letter of complaint", "we warned all our friends")
