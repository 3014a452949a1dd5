"""Tools the model learns to call, and conversations that call them.

Every tool has several names and several names for each parameter, drawn anew for each
conversation, so the model has to read the list it is given instead of learning fixed
calls.  Three ways of listing tools are taught:

* system:  the system turn of the Qwen3 chat template (complete OpenAI objects);
* inline:  the same objects between <tools> and </tools> in front of the request;
* compact: one short object per tool, {"name": ..., "parameters": {"city": "string"}}.
"""
import json

from stories import ANIMALS, NAMES, SNACKS, TOYS, any_name
from world import HOMES, MATERIALS, PEOPLE, TOWNS

CITIES = ("London Paris Berlin Madrid Rome Vienna Prague Warsaw Oslo Stockholm Helsinki Copenhagen Dublin Lisbon "
          "Athens Budapest Brussels Amsterdam Zurich Geneva Milan Naples Venice Munich Hamburg Cologne Lyon "
          "Marseille Barcelona Porto Moscow Istanbul Cairo Nairobi Lagos Mumbai Delhi Tokyo Osaka Kyoto Seoul "
          "Beijing Shanghai Singapore Sydney Melbourne Auckland Toronto Montreal Vancouver Boston Chicago Denver "
          "Seattle Dallas Austin Houston Miami Lima Bogota Santiago Havana").split() + ["New York", "San Francisco",
          "Los Angeles", "Mexico City", "Cape Town", "Hong Kong", "Buenos Aires"]
TOPICS = ("solar panels|old bridges|wild mushrooms|the moon|train tickets|garden birds|bread recipes|chess openings|"
          "electric cars|winter boots|mountain huts|sea turtles|steam engines|paper planes|coral reefs|folk songs|"
          "honey bees|stone circles|night trains|the northern lights|clay pots|river boats|wind power|jazz music").split("|")
ITEMS = ("milk bread butter eggs apples tea coffee rice soap cheese honey flour carrots onions pasta salt sugar "
         "bananas tomatoes potatoes candles matches").split()
ROOMS = "kitchen|bedroom|bathroom|hall|living room|office|garage|cellar|attic|nursery".split("|")
SONGS = ("Blue River|Morning Light|Paper Moon|Silent Hills|The Long Road|Golden Days|Summer Rain|Over the Bridge|"
         "Dancing Leaves|Winter Song|Little Lantern|Northern Star|The Old Mill|Sailing Home").split("|")
EVENTS = ("dinner|lunch|a meeting|a walk|the dentist|a piano lesson|a phone call|football practice|a picnic|"
          "the school play|a haircut|book club").split("|")
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MESSAGES = ("I will be late|dinner is ready|the train is on time|see you tomorrow|please call me|I am at the station|"
            "the parcel has arrived|happy birthday|the meeting is at noon|thank you for the flowers|do not forget the keys|"
            "we are out of milk|the door is open|I found your scarf").split("|")
NOTES = ("buy new shoes|water the plants|call the plumber|return the library book|fix the bike|pay the rent|"
         "clean the windows|feed the cat|write to grandmother|check the tyres|order more paper|sharpen the knives").split("|")
FOOD = "tomatoes|chicken|lentils|pumpkin|mushrooms|rice|salmon|apples|beans|spinach|cheese|potatoes".split("|")
DISHES = "soup|stew|salad|curry|pie|pasta|omelette|risotto".split("|")
RESTAURANTS = "the Blue Door|Casa Verde|the Old Inn|Luigi|the Green Spoon|Sakura|the Harbour|La Table|the Copper Pot".split("|")
LANGUAGES = {
    "French": ["bonjour", "merci", "bonne nuit", "au revoir", "le chat", "l'eau", "le pain", "la maison"],
    "German": ["guten Morgen", "danke", "gute Nacht", "auf Wiedersehen", "die Katze", "das Wasser", "das Brot", "das Haus"],
    "Spanish": ["buenos dias", "gracias", "buenas noches", "hasta luego", "el gato", "el agua", "el pan", "la casa"],
    "Italian": ["buongiorno", "grazie", "buona notte", "arrivederci", "il gatto", "l'acqua", "il pane", "la casa"]}
PHRASES = ["good morning", "thank you", "good night", "goodbye", "the cat", "the water", "the bread", "the house"]
CURRENCIES = ["euros", "dollars", "pounds", "yen", "francs", "crowns"]
FILES = ["notes", "report", "readme", "todo", "main", "config", "letter", "data", "index", "budget"]
ENDINGS = [".txt", ".md", ".c", ".py", ".json", ".csv"]
SKIES = ["light rain", "clear sky", "heavy snow", "thick fog", "strong wind", "some clouds", "a thunderstorm", "sunshine"]


def clock(r):
    return "%02d:%02d" % (r.randrange(24), r.choice([0, 5, 10, 15, 20, 30, 40, 45, 50]))


def person(r):
    return r.choice(PEOPLE) if r.random() < 0.4 else any_name(r)


def city(r):
    u = r.random()
    return r.choice(TOWNS) if u < 0.35 else r.choice(CITIES) if u < 0.85 else any_name(r) + r.choice(["ton", "ville", "burg", "ford"])


def expression(r):
    a, b, op = r.randrange(2, 1000), r.randrange(2, 100), r.choice("+-*")
    return "%d %s %d" % (a, op, b)


VALUES = {
    "city": city, "city2": city, "person": person, "clock": clock, "expression": expression,
    "minutes": lambda r: r.choice([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 18, 20, 25, 30, 35, 40, 45, 50, 55, 60, 75, 90]),
    "topic": lambda r: r.choice(TOPICS), "item": lambda r: r.choice(ITEMS), "room": lambda r: r.choice(ROOMS),
    "state": lambda r: r.choice(["on", "off"]), "degrees": lambda r: r.randrange(12, 28), "song": lambda r: r.choice(SONGS),
    "event": lambda r: r.choice(EVENTS) + (" with " + person(r) if r.random() < 0.5 else ""),
    "day": lambda r: r.choice(DAYS), "message": lambda r: r.choice(MESSAGES), "note": lambda r: r.choice(NOTES),
    "food": lambda r: r.choice(FOOD), "restaurant": lambda r: r.choice(RESTAURANTS), "people": lambda r: r.randrange(2, 13),
    "language": lambda r: r.choice(list(LANGUAGES)), "phrase": lambda r: r.choice(PHRASES),
    "amount": lambda r: r.randrange(2, 500), "currency": lambda r: r.choice(CURRENCIES), "currency2": lambda r: r.choice(CURRENCIES),
    "sides": lambda r: r.choice([4, 6, 8, 10, 12, 20]), "count": lambda r: r.randrange(2, 7),
    "file": lambda r: r.choice(FILES) + r.choice(ENDINGS)}
NUMBERS = {"minutes", "degrees", "people", "amount", "sides", "count"}

# tool: names, description, parameters (slot, names), requests, result, final answer.
# In requests and answers {slot} is the argument, {=key} a value of the result.
TOOLS = {
    "weather": (["get_weather", "weather", "current_weather", "lookup_weather"], "Get the current weather in a city.",
                [("city", ["city", "location", "town", "place"])],
                ["What is the weather in {city}?", "What's the weather like in {city}?", "How is the weather in {city} today?",
                 "Tell me the weather in {city}.", "Is it raining in {city}?", "Weather in {city}, please."],
                lambda r, v: {"temperature": r.randrange(-9, 36), "condition": r.choice(SKIES)},
                "In {city} it is {=temperature} degrees with {=condition}."),
    "time": (["get_time", "current_time", "time_in_city", "clock"], "Get the local time in a city.",
             [("city", ["city", "location", "place"])],
             ["What time is it in {city}?", "Tell me the time in {city}.", "How late is it in {city}?", "What is the local time in {city}?"],
             lambda r, v: {"time": clock(r)}, "It is {=time} in {city}."),
    "calculator": (["calculate", "calculator", "evaluate", "compute"], "Evaluate an arithmetic expression.",
                   [("expression", ["expression", "formula", "input"])],
                   ["What is {expression}?", "Calculate {expression}.", "Please work out {expression}.", "How much is {expression}?"],
                   lambda r, v: {"result": eval(v["expression"])}, "{expression} = {=result}."),
    "timer": (["set_timer", "start_timer", "timer"], "Start a timer.", [("minutes", ["minutes", "duration", "length"])],
              ["Set a timer for {minutes} minutes.", "Start a {minutes} minute timer.", "Remind me in {minutes} minutes.",
               "Please set the timer to {minutes} minutes."],
              lambda r, v: {"status": "ok"}, "The timer is set for {minutes} minutes."),
    "alarm": (["set_alarm", "alarm", "create_alarm"], "Set an alarm.", [("clock", ["time", "at", "when"])],
              ["Set an alarm for {clock}.", "Wake me up at {clock}.", "I need an alarm at {clock}.", "Please wake me at {clock}."],
              lambda r, v: {"status": "ok"}, "The alarm is set for {clock}."),
    "message": (["send_message", "send_text", "message"], "Send a message to a person.",
                [("person", ["to", "recipient", "name"]), ("message", ["text", "message", "body"])],
                ["Send a message to {person}: {message}.", "Tell {person}: {message}.", "Write to {person}: {message}.",
                 "Send {person} the message \"{message}\"."],
                lambda r, v: {"status": "sent"}, "I sent your message to {person}."),
    "calendar": (["add_event", "create_event", "calendar_add"], "Add an event to the calendar.",
                 [("event", ["title", "event", "name"]), ("day", ["day", "date"]), ("clock", ["time", "start"])],
                 ["Add {event} to my calendar on {day} at {clock}.", "Put {event} in my calendar for {day} at {clock}.",
                  "I have {event} on {day} at {clock}, please add it."],
                 lambda r, v: {"status": "ok"}, "I added {event} on {day} at {clock}."),
    "search": (["web_search", "search", "search_web"], "Search the web.", [("topic", ["query", "q", "text"])],
               ["Search the web for {topic}.", "Find something about {topic}.", "Look up {topic}.", "Search for {topic}."],
               lambda r, v: {"results": r.randrange(2, 900)}, "I found {=results} results for {topic}."),
    "translate": (["translate", "translate_text", "translator"], "Translate a text into another language.",
                  [("phrase", ["text", "phrase", "input"]), ("language", ["language", "target", "to"])],
                  ["Translate \"{phrase}\" into {language}.", "How do you say \"{phrase}\" in {language}?",
                   "What is \"{phrase}\" in {language}?"],
                  lambda r, v: {"translation": LANGUAGES[v["language"]][PHRASES.index(v["phrase"])]},
                  "In {language} that is \"{=translation}\"."),
    "music": (["play_song", "play_music", "play"], "Play a song.", [("song", ["title", "song", "name"])],
              ["Play {song}.", "Please play {song}.", "I want to hear {song}.", "Put on {song}."],
              lambda r, v: {"status": "playing"}, "Now playing {song}."),
    "distance": (["get_distance", "distance", "route_length"], "Get the distance between two cities.",
                 [("city", ["origin", "from", "start"]), ("city2", ["destination", "to", "end"])],
                 ["How far is it from {city} to {city2}?", "What is the distance from {city} to {city2}?",
                  "How many kilometres is it from {city} to {city2}?"],
                 lambda r, v: {"kilometres": r.randrange(3, 9000)}, "It is {=kilometres} kilometres from {city} to {city2}."),
    "shopping": (["add_to_list", "shopping_list_add", "add_item"], "Add an item to the shopping list.",
                 [("item", ["item", "product", "name"])],
                 ["Add {item} to my shopping list.", "Put {item} on the shopping list.", "We need {item}, please add it to the list."],
                 lambda r, v: {"items": r.randrange(1, 20)}, "I added {item}. There are {=items} items on the list."),
    "light": (["set_light", "switch_light", "light"], "Switch a light on or off.",
              [("room", ["room", "place", "location"]), ("state", ["state", "value"])],
              ["Turn {state} the light in the {room}.", "Switch the {room} light {state}.", "Please turn the light in the {room} {state}."],
              lambda r, v: {"status": "ok"}, "The light in the {room} is {state}."),
    "heating": (["set_temperature", "heating", "thermostat"], "Set the temperature of a room.",
                [("room", ["room", "zone"]), ("degrees", ["degrees", "temperature", "celsius"])],
                ["Set the {room} to {degrees} degrees.", "Heat the {room} to {degrees} degrees.", "Make it {degrees} degrees in the {room}."],
                lambda r, v: {"status": "ok"}, "The {room} is set to {degrees} degrees."),
    "table": (["book_table", "reserve_table", "reservation"], "Book a table in a restaurant.",
              [("restaurant", ["restaurant", "name", "place"]), ("people", ["people", "guests", "seats"]), ("clock", ["time", "at"])],
              ["Book a table for {people} at {restaurant} at {clock}.", "Reserve a table at {restaurant} for {people} people at {clock}."],
              lambda r, v: {"code": r.randrange(100, 999)}, "Your table at {restaurant} is booked for {clock}. The code is {=code}."),
    "recipe": (["find_recipe", "recipe_search", "get_recipe"], "Find a recipe with an ingredient.",
               [("food", ["ingredient", "with", "food"])],
               ["Find a recipe with {food}.", "What can I cook with {food}?", "I have {food}. What can I make?"],
               lambda r, v: {"recipe": r.choice(DISHES), "minutes": r.randrange(10, 90)},
               "You can make a {=recipe} with {food} in {=minutes} minutes."),
    "dice": (["roll_dice", "dice", "roll"], "Roll some dice.", [("count", ["count", "number"]), ("sides", ["sides", "faces"])],
             ["Roll {count} dice with {sides} sides.", "Throw {count} dice with {sides} sides each.", "Roll {count} {sides}-sided dice."],
             lambda r, v: {"total": sum(r.randrange(v["sides"]) + 1 for _ in range(v["count"]))}, "The dice show {=total} in total."),
    "currency": (["convert_currency", "exchange", "convert_money"], "Convert an amount of money.",
                 [("amount", ["amount", "value"]), ("currency", ["from", "source"]), ("currency2", ["to", "target"])],
                 ["Convert {amount} {currency} to {currency2}.", "How much is {amount} {currency} in {currency2}?",
                  "Change {amount} {currency} into {currency2}."],
                 lambda r, v: {"result": r.randrange(2, 900)}, "{amount} {currency} are {=result} {currency2}."),
    "note": (["create_note", "save_note", "add_note"], "Save a note.", [("note", ["text", "note", "content"])],
             ["Make a note: {note}.", "Write down: {note}.", "Save a note: {note}.", "Note to myself: {note}."],
             lambda r, v: {"status": "saved"}, "I saved the note \"{note}\"."),
    "phone": (["find_number", "phone_book", "lookup_contact"], "Find the phone number of a person.",
              [("person", ["name", "person", "contact"])],
              ["What is the phone number of {person}?", "Find the number of {person}.", "How can I call {person}?"],
              lambda r, v: {"number": "555-%04d" % r.randrange(10000)}, "The number of {person} is {=number}."),
    "file": (["read_file", "open_file", "cat_file"], "Read a file.", [("file", ["path", "file", "filename"])],
             ["Open the file {file}.", "What is in {file}?", "Show me {file}.", "Read {file}, please."],
             lambda r, v: {"content": r.choice(NOTES)}, "The file {file} says: {=content}."),
}


def dumps(x):
    return json.dumps(x, ensure_ascii=False)


def draw_tool(r, base):
    """One drawn form of a tool: names for itself and its parameters."""
    names, description, params = TOOLS[base][:3]
    first = r.random() < 0.4          # the plain names often, the other ones sometimes
    pick = (lambda options: options[0]) if first else r.choice
    tool = {"base": base, "name": pick(names), "description": description, "params": []}
    used = set()
    for slot, options in params:
        name = pick(options)
        while name in used:
            name = r.choice(options)
        used.add(name)
        tool["params"].append((slot, name, "integer" if slot in NUMBERS else "string"))
    return tool


def full_object(tool, describe):
    """The OpenAI form of a tool."""
    props = {name: {"type": kind, "description": "The %s." % name} if describe else {"type": kind}
             for _, name, kind in tool["params"]}
    return {"type": "function", "function": {
        "name": tool["name"], "description": tool["description"],
        "parameters": {"type": "object", "properties": props, "required": list(props)}}}


def compact_object(tool):
    return {"name": tool["name"], "parameters": {name: kind for _, name, kind in tool["params"]}}


SYSTEM_HEAD = ("# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with "
               "function signatures within <tools></tools> XML tags:\n<tools>")
SYSTEM_TAIL = ("\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
               "<tool_call></tool_call> XML tags:\n<tool_call>\n{\"name\": <function-name>, \"arguments\": "
               "<args-json-object>}\n</tool_call>")


def system_text(objects, text=""):
    """The system turn with tools, as the Qwen3 chat template renders it."""
    return (text + "\n\n" if text else "") + SYSTEM_HEAD + "".join("\n" + dumps(o) for o in objects) + SYSTEM_TAIL


def inline_text(objects):
    """Tools in front of a request inside one user turn."""
    return "<tools>\n" + "".join(dumps(o) + "\n" for o in objects) + "</tools>\n"


OPEN = {"topic", "item", "song", "message", "note", "food", "restaurant", "room", "file", "event", "person", "city"}
WORDS = sorted({w.lower() for group in (TOPICS, MESSAGES, NOTES, SONGS, FOOD, ITEMS, DISHES, EVENTS, ROOMS, PHRASES,
                                        SNACKS, TOYS, ANIMALS, HOMES, MATERIALS, SKIES)
                for text in group for w in text.split()})


def free_text(r):
    """Words in any order, now and then a made-up one: arguments have to be copied, not guessed."""
    words = [any_name(r) if r.random() < 0.2 else r.choice(WORDS) for _ in range(r.choice([1, 1, 2, 2, 3, 4]))]
    return " ".join(words)


def draw_args(r, tool):
    values = {slot: free_text(r) if slot in OPEN and r.random() < 0.4 else VALUES[slot](r)
              for slot, _, _ in tool["params"]}
    while values.get("city2") is not None and values["city2"] == values["city"]:
        values["city2"] = city(r)
    while values.get("currency2") is not None and values["currency2"] == values["currency"]:
        values["currency2"] = r.choice(CURRENCIES)
    return values


def call_text(tool, values):
    args = {name: values[slot] for slot, name, _ in tool["params"]}
    return "<tool_call>\n" + dumps({"name": tool["name"], "arguments": args}) + "\n</tool_call>"


def request(r, tool, values):
    return r.choice(TOOLS[tool["base"]][3]).format(**values)


def result_of(r, tool, values):
    return TOOLS[tool["base"]][4](r, values)


def final_answer(tool, values, result):
    text = TOOLS[tool["base"]][5]
    for key, value in result.items():
        text = text.replace("{=%s}" % key, str(value))
    return text.format(**values)


def draw_list(r, most=5):
    """A list of tools, all different and with different names."""
    bases = r.sample(list(TOOLS), r.choice([1, 1, 2, 2, 3, 3, 4, most]))
    return [draw_tool(r, b) for b in bases]


__all__ = ["NAMES", "draw_list", "draw_args", "request", "call_text", "result_of", "final_answer"]
