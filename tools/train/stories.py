"""A grammar of short stories for children.

A story has a hero (an animal or a child) with a name, a place with its own things in
it, a friend, and one of several plots.  A plot is a row of beats; every beat has some
wordings.  The names, the place and the pronoun stay the same from the first line to
the last: that consistency is what the model has to learn here.
"""

ANIMALS = ("fox rabbit bear mouse owl hedgehog squirrel otter badger deer frog duck beaver cat puppy "
           "lamb pony sparrow turtle mole wolf goat crow penguin dragon kitten piglet snail robin hare").split()
CHILDREN = ["girl", "boy"]
NAMES = ("Pip Lily Max Daisy Toby Poppy Sam Molly Ben Rosie Jack Ella Oscar Ruby Charlie Hazel Milo Penny "
         "Alfie Luna Benny Maya Teddy Willow Rufus Zara Ollie Nell Barnaby Tess Gus Flora Hugo Mina Bramble "
         "Clover Biscuit Maple Juniper Pebble Acorn Fern Robin Sunny Misty Button Coco Dot Basil Bella").split()
MOODS = "little brave shy curious kind clever gentle cheerful small young quiet merry".split()

# place: (where it is, a thing to walk by, a thing to rest at, something that lives or happens there)
PLACES = {
    "forest": ("in the forest", "the tall oak trees", "the mossy log", "the leaves whispered in the wind"),
    "sea": ("by the sea", "the white dunes", "the smooth grey rock", "the waves rolled softly on the sand"),
    "mountains": ("in the mountains", "the steep stone path", "the warm flat rock", "the clouds drifted below the peaks"),
    "farm": ("on a farm", "the old red barn", "the stack of hay", "the hens clucked in the yard"),
    "garden": ("in a garden", "the rows of beans", "the wooden bench", "the bees hummed around the roses"),
    "village": ("in a village", "the stone well", "the steps of the bakery", "the church bell rang in the square"),
    "river": ("by the river", "the bending reeds", "the fallen willow", "the water sang over the stones"),
    "meadow": ("in a meadow", "the tall grass", "the round hay bale", "the crickets chirped in the clover"),
    "city": ("in the city", "the busy market stalls", "the green park bench", "the trams rattled down the street"),
    "lake": ("by the lake", "the wooden pier", "the upturned boat", "the water shone like a mirror"),
    "castle": ("in a castle", "the long stone hall", "the deep window seat", "the flags flapped on the towers"),
    "island": ("on an island", "the bent palm trees", "the warm heap of sand", "the gulls circled over the bay"),
    "snow": ("in the snowy north", "the frozen pond", "the snug hollow in the snow", "the northern lights danced in the sky"),
    "orchard": ("in an orchard", "the old apple trees", "the empty fruit crate", "the ripe apples dropped in the grass"),
}
TIMES = ["One morning", "One sunny day", "One windy afternoon", "Early one morning", "One autumn day",
         "One spring morning", "One quiet evening", "One bright summer day", "After breakfast one day"]
TOYS = ["red kite", "blue ball", "wooden boat", "tiny bell", "green scarf", "silver key", "paper star",
        "brass button", "little drum", "yellow hat", "glass marble", "striped mitten", "toy train", "golden ring"]
SNACKS = ["warm bread", "blueberry muffins", "honey cakes", "apple pie", "sweet berries", "carrot soup",
          "hot cocoa", "ginger biscuits", "pancakes", "roasted chestnuts"]
WEATHER = ["a wild wind", "a heavy rain", "a cold wind", "a loud storm", "a sudden snow"]

OPENINGS = [
    "Once upon a time, there was {aM} {K} named {N} who lived {P}.",
    "There once was {aM} {K} called {N} who lived {P}.",
    "Long ago, {aM} {K} named {N} lived {P}.",
    "{N} was {aM} {K} who lived {P}.",
    "Far away, {P}, there lived {aM} {K} named {N}.",
]
SCENERY = [
    "Every day {he} walked past {W}, and {L}.",
    "It was a lovely home, for {L}.",
    "{He} loved to sit at {R} while {L}.",
    "All day long {L}, and {N} was happy there.",
    "{He} knew every corner of it, from {W} to {R}.",
]
ENDINGS = [
    "That night {N} fell asleep with a smile.",
    "And from that day on, {N} and {F} were the best of friends.",
    "\"What a wonderful day,\" said {N}, and {he} closed {his} eyes.",
    "{N} never forgot that day.",
    "And {N} was happy all the way home.",
    "Then the stars came out, and all was well {P}.",
]

PLOTS = {
    "a lost toy": [
        ["{T} {N} could not find {his} {O}.", "{T} {N} saw that {his} {O} was gone."],
        ["{He} looked behind {W} and under {R}, but it was not there.",
         "{He} searched all around {W}, but {he} found nothing.",
         "\"Where can it be?\" {he} cried, and {he} began to search near {W}."],
        ["Then {he} met {aG} named {F}.", "Soon {aG} called {F} came along."],
        ["\"Why are you so sad?\" asked {F}. \"I have lost my {O},\" said {N}.",
         "\"I have lost my {O},\" said {N}. \"Do not worry,\" said {F}, \"I will help you.\""],
        ["Together they looked again, slowly and with care.",
         "They walked side by side and looked at every stone and every leaf."],
        ["At last {F} saw something shine next to {R}. It was the {O}!",
         "And there, right beside {R}, lay the {O}!"],
        ["\"Thank you, {F}!\" said {N}. \"Two pairs of eyes are better than one.\"",
         "{N} hugged {F} and laughed. \"I could not have found it without you.\""],
    ],
    "making a friend": [
        ["{N} had no one to play with, and {he} often felt lonely.",
         "But {N} wished for a friend more than anything."],
        ["{T} {he} heard someone crying near {W}.", "{T} {he} heard a soft sob behind {W}."],
        ["It was {aG} named {F}, who had hurt a foot.", "There sat {aG} called {F}, cold and tired."],
        ["\"Can I help you?\" asked {N}. {F} nodded and dried {Fhis} tears.",
         "{N} sat down beside {F} and shared {his} {S}."],
        ["{N} led {F} to {R}, where they could rest.", "Slowly they walked to {R} and sat down together."],
        ["They talked until the sun went down, and they found out that they both loved {S}.",
         "They told each other stories, and soon both of them were laughing."],
        ["\"Will you come again tomorrow?\" asked {N}. \"Of course,\" said {F}.",
         "\"You were kind to me,\" said {F}. \"Let us be friends.\""],
    ],
    "being brave": [
        ["{N} was afraid of the dark.", "{N} did not like to go out after sunset."],
        ["{T} {w} came, and {his} friend {F} did not come home.",
         "{T} {w} came up, and everyone ran inside. Only {F} the {G} was missing."],
        ["{N} thought of {F}, all alone near {W}.", "\"{F} must be lost,\" thought {N}, and {his} heart beat fast."],
        ["So {he} took a lamp and stepped outside.", "{He} took a deep breath, lit a lamp and went out."],
        ["The shadows were long, but {N} kept going, step by step.",
         "Something moved, but it was only a branch, and {N} walked on."],
        ["Behind {R} {he} found {F}, wet and shivering. \"You came!\" said {F}.",
         "At {R} {he} heard a small voice. \"Here I am!\" called {F}."],
        ["They went home together, and {N} found that the dark was not so bad after all.",
         "Hand in hand they walked back. \"You are the bravest {K} I know,\" said {F}."],
    ],
    "sharing": [
        ["{T} {N} made {S} for {his} lunch.", "{T} {N} had a basket full of {S}."],
        ["It smelled so good that {he} hurried to {R} to eat.", "{He} carried everything to {R} and sat down."],
        ["Just then {F} the {G} came by and looked very hungry.",
         "Then {aG} named {F} stopped in front of {him}. \"I have had nothing to eat today,\" said {F}."],
        ["At first {N} wanted to keep it all.", "{N} looked at the food, and then {he} looked at {F}."],
        ["But then {he} said, \"Come and sit with me. There is enough for two.\"",
         "\"Please take half of it,\" said {N}."],
        ["They ate together while {L}.", "They ate every last crumb and talked about all sorts of things."],
        ["\"It tastes better when you share,\" said {N}, and {F} agreed.",
         "The next day {F} came back with a {O} as a gift, and {N} was very glad."],
    ],
    "learning something new": [
        ["{N} wanted to learn how to swim, but {he} was afraid to try.",
         "{N} wanted to play the drum, but it always sounded wrong."],
        ["{T} {he} asked {F} the {G} for help.", "{T} {he} went to {F}, a wise old {G}."],
        ["\"Nobody is good at it on the first day,\" said {F}. \"Let us begin.\"",
         "\"You only need time,\" said {F}, and they began right away."],
        ["The first try went wrong, and {N} wanted to give up.", "{N} tried once, and it was a great mess."],
        ["But {he} rested at {R} for a while, and then {he} tried again.",
         "\"Once more,\" said {F}, and {N} tried again, and again, and again."],
        ["Every day it went a little better.", "Day after day they met by {W}, and day after day it went better."],
        ["In the end {N} could do it all alone, and {F} clapped and cheered.",
         "\"I did it!\" shouted {N}. \"I knew you would,\" said {F}."],
    ],
    "a treasure map": [
        ["{T} {N} found an old map under {R}.", "{T} the wind blew an old map to {his} feet."],
        ["It showed {W} and a big red cross.", "There was a path on it, and at the end a big red cross."],
        ["\"A treasure!\" cried {N}, and {he} ran to tell {F} the {G}.",
         "{He} showed it to {F} the {G}. \"We must go at once,\" said {F}."],
        ["They packed {S} and a lantern, and off they went.", "They took a spade and some {S} and set out together."],
        ["They walked past {W} and counted a hundred steps.", "The way was long, and twice they took a wrong turn."],
        ["Then they dug, and they found a small wooden box.", "At last they found a box, hidden in a hole."],
        ["Inside lay a {O} and a note. It said, \"The best treasure is a friend.\"",
         "Inside was a {O}, shining in the light. \"It belongs to both of us,\" said {N}."],
    ],
    "a star that fell": [
        ["{T} {N} saw a light fall from the sky.", "{T} a bright star fell down behind {W}."],
        ["{He} ran past {W} and found a tiny star on the ground.",
         "There it lay at {R}, small and round and warm."],
        ["\"I want to go home,\" said the star in a thin voice.", "\"Please help me,\" the star whispered."],
        ["{N} did not know what to do, so {he} asked {F} the {G}.",
         "{N} wrapped it in {his} scarf and carried it to {F} the {G}."],
        ["\"We need a high place,\" said {F}, and they climbed and climbed.",
         "\"Stars fly when someone sings to them,\" said {F}."],
        ["They sang a soft song together, and the star began to glow.",
         "They held it up high, and the star grew brighter and brighter."],
        ["Then it rose up into the sky and winked at them.",
         "Up it went, back to its place, and since then it shines above {N} every night."],
    ],
    "a birthday surprise": [
        ["It was {his} birthday, but nobody said a word about it.", "{T} {N} woke up, for it was {his} birthday."],
        ["{He} went to see {F} the {G}, but {F} was not at home.", "{He} walked past {W}, but no one was there."],
        ["\"Has everyone forgotten me?\" thought {N}, and {he} sat down at {R}.",
         "{N} felt very sad and went to {R} all alone."],
        ["Then {he} heard a whisper and a giggle.", "Suddenly something rustled, and someone laughed."],
        ["\"Surprise!\" called {F}, and all the friends jumped out.", "\"Happy birthday, {N}!\" shouted {F} and all the others."],
        ["There was a table with {S} and a present with a bow.", "They had made {S} and hung up paper lamps."],
        ["In the present was a {O}, just what {N} had always wanted.",
         "{F} gave {him} a {O}, and they danced until it was dark."],
    ],
    "the big storm": [
        ["{T} {w} came, and {W} shook.", "{T} {w} swept over the land."],
        ["{N} ran home as fast as {he} could.", "{N} hid under a blanket and listened."],
        ["When it was over, {he} saw that the house of {F} the {G} was broken.",
         "Afterwards {F} the {G} stood at the door. \"My roof is gone,\" said {F}."],
        ["\"You can stay with me,\" said {N}.", "\"Come in and get warm,\" said {N}, and {he} made {S}."],
        ["The next day they carried wood and stones all morning.", "They worked from dawn until noon and sang as they worked."],
        ["Other friends came to help, and the house grew and grew.", "Bit by bit the house stood up again."],
        ["\"Now it is stronger than before,\" said {F}, and they sat at {R} to rest.",
         "\"A good friend is stronger than any storm,\" said {F}."],
    ],
    "a lost baby bird": [
        ["{T} {N} found a baby bird near {W}.", "{T} a baby bird fell out of its nest, right in front of {N}."],
        ["It was small and cold, and it could not fly.", "It peeped and peeped, but its mother was not there."],
        ["{N} gave it water and kept it warm.", "{He} made it a soft bed in {his} hat."],
        ["\"We must find its mother,\" said {N} to {F} the {G}.", "Then {he} asked {F} the {G} what to do."],
        ["They looked up into every tree and called.", "{F} climbed up high and looked around."],
        ["At last they saw a nest near {R}.", "Then they heard a song from above {R}."],
        ["The mother bird sang for joy and thanked them both.",
         "Gently they put the baby back, and the mother sang her finest song for them."],
    ],
}

ASKS = ["Tell me a story{x}.", "Tell me a short story{x}.", "Please tell me a story{x}.", "Write a story{x}.",
        "Write a short story{x}.", "Can you tell me a story{x}?", "Tell me a bedtime story{x}.",
        "I would like to hear a story{x}.", "tell me a story{x}", "Make up a story{x}."]


def article(word):
    return "an" if word[0].lower() in "aeiou" else "a"


def invent_name(r):
    """A made-up name, so that the model learns to copy names it has never seen."""
    a = r.choice(["B", "D", "F", "G", "J", "K", "L", "M", "N", "P", "R", "S", "T", "V", "W", "Z", "Br", "Tr", "Fl", "Sh"])
    s = a + r.choice("a e i o u ee oo ai".split()) + r.choice("l m n r s t b d g k p v z ll mm nn rr".split())
    return s + r.choice(["a", "o", "i", "y", "us", "in", "el", "ie", "et", "or", "im"])


def any_name(r):
    return r.choice(NAMES) if r.random() < 0.75 else invent_name(r)


def story(r):
    """(prompt, story) from the random source r."""
    child = r.random() < 0.12
    kind = r.choice(CHILDREN) if child else r.choice(ANIMALS)
    name = any_name(r)
    place = r.choice(list(PLACES))
    plot = r.choice(list(PLOTS))
    mood = r.choice(MOODS)
    where, walk, rest, lives = PLACES[place]
    boy = kind == "boy" or (kind != "girl" and r.random() < 0.5)
    he, him, his = ("he", "him", "his") if boy else ("she", "her", "her")
    friend = any_name(r)
    while friend == name:
        friend = any_name(r)
    other = r.choice([a for a in ANIMALS if a != kind])
    slots = {
        "N": name, "K": kind, "P": where, "W": walk, "R": rest, "L": lives, "F": friend, "G": other,
        "aM": "%s %s" % (article(mood), mood), "aG": "%s %s" % (article(other), other),
        "he": he, "He": he.capitalize(), "him": him, "his": his, "Fhis": r.choice(["his", "her"]),
        "T": r.choice(TIMES), "O": r.choice(TOYS), "S": r.choice(SNACKS), "w": r.choice(WEATHER)}
    beats = [r.choice(b) for b in PLOTS[plot]]
    paragraphs = [[r.choice(OPENINGS), r.choice(SCENERY)], beats[:3], beats[3:5], beats[5:] + [r.choice(ENDINGS)]]
    text = "\n\n".join(" ".join(p) for p in paragraphs).format(**slots)
    return ask(r, kind, name, where, plot, mood), text


def ask(r, kind, name, where, plot, mood):
    """A request that names some of what the story will hold (and nothing else)."""
    x, u = "", r.random()
    if u < 0.88:
        m = mood + " " if r.random() < 0.3 else ""
        x = " about %s %s%s" % (article(m or kind), m, kind)
        if r.random() < 0.75:
            x += " %s %s" % (r.choice(["named", "called"]), name)
        if r.random() < 0.6:
            x += " " + where
        elif r.random() < 0.25:
            x += " and " + plot
    elif u < 0.95:
        x = " about " + plot
    return r.choice(ASKS).format(x=x)
