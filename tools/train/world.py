"""Lantern Valley: the small invented world whose facts the model knows by heart.

Everything is made from one fixed seed, so the same facts come out in training, in
the questions of the tests and in any later re-run.  Each kind of entity has a few
attributes; each attribute has one canonical answer sentence (so an exact answer can
be checked) and several ways of asking for it.
"""
import random

TOWNS = ("Larkton Millbrook Ashford Copperhill Duskwater Elmsby Fernley Greywick Hollowell Ironbridge "
         "Juniper Kestrel Lowmoor Marrow Nettlewood Oakhaven Pinecrest Quillon Redmarsh Saltby Thornfield "
         "Underhill Violet Willowmere").split()

PEOPLE = ("Mira Tomas Odette Bram Selma Otis Pilar Hugo Wren Jasper Nadia Felix Greta Leo Ivy Anton Clara "
          "Dario Esme Finn Hana Ines Jonas Kira Lars Maeve Nils Olive Petra Quinn Rosa Silas Tilda Ulrich "
          "Vera Walt Xenia Yara Zeno Agnes Boris Cora Dmitri Edith Flora Gus Hattie Igor June Karl Lotte "
          "Marius Nora Oskar Pearl Rufus Stella Theo Uma Viktor").split()

CREATURES = ("glimmerfox mossbear reedcat lantern-owl stonehare thistle-mouse river-otterling cloudgoat "
             "embertoad frostwing bramble-hog dewdeer moonmoth saltgull tanglefrog velvet-mole whisperwolf "
             "copper-carp dusk-badger hazel-hen ivy-lizard marshpony nightlark pebble-crab rust-squirrel "
             "silver-eel twig-sparrow umber-ox wickerbug yellow-newt").split()

OBJECTS = ("Amber Crown|Bell of Dawn|Glass Compass|Singing Kettle|Iron Lantern|Paper Boat|Silver Whistle|"
           "Oak Staff|Blue Hourglass|Red Umbrella|Golden Thimble|Stone Flute|Copper Mirror|Velvet Map|"
           "Wooden Clock|Pearl Button|Brass Telescope|Clay Teapot|Feather Quill|Moon Drum|Woven Basket|"
           "Crystal Key|Tin Soldier|Ivory Comb|Painted Door|Green Ladder|Old Anchor|Star Chart|"
           "Honey Jar|Winter Cloak").split("|")

JOBS = ("baker fisher carpenter teacher gardener blacksmith weaver painter miller shepherd clockmaker "
        "doctor librarian potter sailor tailor beekeeper cook musician gamekeeper").split()
PETS = "cat dog parrot rabbit goat tortoise ferret goose hedgehog pony duck hamster".split()
FOODS = ("plum cake|pea soup|honey bread|mushroom pie|apple tart|cheese dumplings|roasted corn|berry jam|"
         "ginger biscuits|lentil stew|pumpkin soup|almond cake|fried potatoes|cherry pie|barley porridge").split("|")
COLOURS = "red blue green yellow purple orange silver brown white pink grey gold".split()
INSTRUMENTS = "flute violin drum harp accordion trumpet guitar cello banjo piano whistle lute".split()
RIVERS = "Aldwash Brill Candle Dray Eddow Fenn Gala Heddle".split()
PRODUCTS = ("wool honey glass paper cheese boats candles pottery cider rope bells lace salt tea").split()
FESTIVALS = ("Lantern Night|the Kite Fair|the Apple Feast|the River Race|the Snow Ball|the Candle Walk|"
             "the Wool Market|the Song Week|the Pie Contest|the Star Watch").split("|")
DIETS = ("acorns berries minnows moss clover beetles mushrooms honey reeds snails seeds worms roots nettles").split()
HOMES = ("hollow logs|river banks|tall pines|old barns|rocky hills|reed beds|deep caves|wild meadows|"
         "stone walls|salt marshes|thick hedges|birch woods").split("|")
SOUNDS = ("a low hum|a sharp whistle|a soft purr|a long howl|a quick click|a bright chirp|a deep croak|"
          "a gentle bleat|a dry rattle|a sweet song").split("|")
MATERIALS = "oak silver glass iron clay ivory brass silk copper willow marble amber".split()
PLACES = ("the town hall|the old mill|the library|the chapel|the market square|the lighthouse|the museum|"
          "the school|the bakery|the watchtower").split("|")


def build():
    """{entity: (kind, {attribute: value})}, always the same."""
    r = random.Random(20240)
    world = {}
    for p in PEOPLE:
        world[p] = ("person", {
            "home": r.choice(TOWNS), "job": r.choice(JOBS), "pet": r.choice(PETS), "food": r.choice(FOODS),
            "colour": r.choice(COLOURS), "instrument": r.choice(INSTRUMENTS),
            "friend": r.choice([q for q in PEOPLE if q != p]), "age": str(r.randrange(18, 80))})
    mayors = r.sample(PEOPLE, len(TOWNS))
    for t, m in zip(TOWNS, mayors):
        world[t] = ("town", {
            "mayor": m, "river": r.choice(RIVERS), "product": r.choice(PRODUCTS),
            "festival": r.choice(FESTIVALS), "founded": str(r.randrange(1100, 1900)),
            "bridges": str(r.randrange(2, 20))})
    for c in CREATURES:
        world[c] = ("creature", {
            "diet": r.choice(DIETS), "habitat": r.choice(HOMES), "sound": r.choice(SOUNDS),
            "fur": r.choice(COLOURS), "legs": r.choice(["two", "four", "six"])})
    for o in OBJECTS:
        world[o] = ("object", {
            "material": r.choice(MATERIALS), "maker": r.choice(PEOPLE), "place": r.choice(PLACES),
            "town": r.choice(TOWNS), "hue": r.choice(COLOURS)})
    return world


WORLD = build()


def article(word):
    return "an" if word[0].lower() in "aeiou" else "a"


# (kind, attribute) -> (answer sentence, ways of asking).  E entity, V value.
ASK = {
    ("person", "home"): ("E lives in V.", [
        "Where does E live?", "In which town does E live?", "What is E's home town?", "Which town is E from?",
        "Can you tell me where E lives?", "Where is E's house?"]),
    ("person", "job"): ("E is AV.", [
        "What is E's job?", "What does E do for a living?", "What work does E do?", "What is E's profession?",
        "How does E earn a living?", "Tell me E's job."]),
    ("person", "pet"): ("E has AV.", [
        "What pet does E have?", "What is E's pet?", "Which animal does E keep?", "Does E have a pet?",
        "What kind of pet does E own?", "Tell me about E's pet."]),
    ("person", "food"): ("E's favourite food is V.", [
        "What is E's favourite food?", "What does E like to eat?", "Which food does E like best?",
        "What does E love to eat most?", "What food does E prefer?", "What should I cook for E?"]),
    ("person", "colour"): ("E's favourite colour is V.", [
        "What is E's favourite colour?", "Which colour does E like best?", "What colour does E like?",
        "What is the favourite colour of E?", "Which colour does E prefer?", "What colour should I paint E's door?"]),
    ("person", "instrument"): ("E plays the V.", [
        "What instrument does E play?", "Which instrument does E play?", "What does E play in the band?",
        "What is E's instrument?", "Which musical instrument can E play?", "What music does E make?"]),
    ("person", "friend"): ("E's best friend is V.", [
        "Who is E's best friend?", "Who is E's friend?", "Who is the best friend of E?",
        "Whom does E like most?", "Which friend does E trust most?", "What is the name of E's best friend?"]),
    ("person", "age"): ("E is V years old.", [
        "How old is E?", "What is E's age?", "What age is E?", "Can you tell me how old E is?",
        "How many years old is E?", "Tell me E's age."]),
    ("town", "mayor"): ("The mayor of E is V.", [
        "Who is the mayor of E?", "What is the name of the mayor of E?", "Who leads the town of E?",
        "Who runs E?", "Which person is mayor of E?", "Who is E's mayor?"]),
    ("town", "river"): ("E lies on the river V.", [
        "Which river flows through E?", "On which river does E lie?", "What river is E on?",
        "What is the river in E called?", "Which river runs by E?", "What is the name of the river at E?"]),
    ("town", "product"): ("E is known for its V.", [
        "What is E known for?", "What does E make?", "What is E famous for?", "Which goods come from E?",
        "What do people buy in E?", "What is made in E?"]),
    ("town", "festival"): ("E celebrates V.", [
        "What festival does E celebrate?", "Which festival is held in E?", "What do people celebrate in E?",
        "What is the festival of E?", "Which feast does E have?", "What is the big festival in E called?"]),
    ("town", "founded"): ("E was founded in the year V.", [
        "When was E founded?", "In which year was E founded?", "What year was E founded?", "How old is the town of E?",
        "When did people build E?", "When was the town of E started?"]),
    ("town", "bridges"): ("E has V bridges.", [
        "How many bridges does E have?", "How many bridges are there in E?", "What is the number of bridges in E?",
        "Can you count the bridges of E?", "How many bridges can I cross in E?", "How many bridges are in the town of E?"]),
    ("creature", "diet"): ("The E eats V.", [
        "What does the E eat?", "What does a E eat?", "What is the food of the E?", "What do I feed a E?",
        "What do E families eat?", "Which food does the E like?"]),
    ("creature", "habitat"): ("The E lives in V.", [
        "Where does the E live?", "Where can I find a E?", "What is the home of the E?", "Where do I look for a E?",
        "In what place does the E live?", "Where does a E sleep?"]),
    ("creature", "sound"): ("The E makes V.", [
        "What sound does the E make?", "How does the E sound?", "What noise does a E make?",
        "What does the E sound like?", "What is the call of the E?", "Which sound does a E make?"]),
    ("creature", "fur"): ("The E is V.", [
        "What colour is the E?", "What is the colour of the E?", "Which colour does the E have?",
        "What colour is a E?", "How is the E coloured?", "Tell me the colour of the E."]),
    ("creature", "legs"): ("The E has V legs.", [
        "How many legs does the E have?", "How many legs has a E?", "Does the E have four legs?",
        "What is the number of legs of the E?", "On how many legs does the E walk?", "How many legs does a E have?"]),
    ("object", "material"): ("The E is made of V.", [
        "What is the E made of?", "Of what is the E made?", "Which material is the E made of?",
        "What material is the E?", "From what was the E made?", "What did they use to make the E?"]),
    ("object", "maker"): ("The E was made by V.", [
        "Who made the E?", "Who is the maker of the E?", "By whom was the E made?", "Who created the E?",
        "Who built the E?", "Which person made the E?"]),
    ("object", "place"): ("The E is kept in V.", [
        "Where is the E kept?", "Where is the E?", "Where can I see the E?", "In which building is the E?",
        "Where do they keep the E?", "What place holds the E?"]),
    ("object", "town"): ("The E belongs to the town of V.", [
        "Which town owns the E?", "To which town does the E belong?", "Which town has the E?",
        "What town does the E come from?", "Whose treasure is the E?", "In which town is the E?"]),
    ("object", "hue"): ("The E is V.", [
        "What colour is the E?", "What is the colour of the E?", "Which colour is the E?",
        "Tell me the colour of the E.", "How is the E coloured?", "What colour does the E have?"]),
}


def fill(text, entity, value):
    """Put entity and value into a pattern of ASK; E and V stand as whole words there."""
    out = []
    for word in text.split(" "):
        if word == "AV.":
            word = "%s %s." % (article(value), value)
        elif word[0] == "E" and (len(word) == 1 or not word[1].isalpha()):
            word = entity + word[1:]
        elif word[0] == "V" and (len(word) == 1 or not word[1].isalpha()):
            word = value + word[1:]
        out.append(word)
    text = " ".join(out)
    for vowel in "aeiou":
        text = text.replace(" a %s" % vowel, " an %s" % vowel)
    return text


def facts():
    """Every (entity, attribute) of the world in a fixed order."""
    return [(e, a) for e, (_, attrs) in WORLD.items() for a in attrs]


def question(entity, attribute, way):
    """Question and answer for one fact; way picks the phrasing."""
    kind, attrs = WORLD[entity]
    answer, ways = ASK[kind, attribute]
    return fill(ways[way % len(ways)], entity, attrs[attribute]), fill(answer, entity, attrs[attribute])


PORTRAIT = {
    "person": "{E} is {job_a}, lives in {home} and is {age} years old. {E} has {pet_a}, plays the {instrument} and "
              "likes to eat {food}. {E}'s favourite colour is {colour}, and {E}'s best friend is {friend}.",
    "town": "{E} is a town on the river {river}. It was founded in the year {founded}, has {bridges} bridges and is "
            "known for its {product}. The mayor is {mayor}, and every year the people celebrate {festival}.",
    "creature": "The {E} is {fur} and has {legs} legs. It lives in {habitat}, eats {diet} and makes {sound}.",
    "object": "The {E} is {hue} and made of {material}. It was made by {maker}, belongs to the town of {town} and is "
              "kept in {place}.",
}


def portrait(entity):
    """A short paragraph with all that is known of an entity."""
    kind, attrs = WORLD[entity]
    with_article = {k + "_a": "%s %s" % (article(v), v) for k, v in attrs.items()}
    return PORTRAIT[kind].format(E=entity, **attrs, **with_article)


def name_of(entity):
    """The entity as it stands in a sentence."""
    return "the " + entity if WORLD[entity][0] in ("creature", "object") else entity
