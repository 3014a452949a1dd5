"""Training text and test questions, made by program from a seed.

A document is a list of (text, weight) pieces: weight 1 for what the assistant says
(including its end marker), a small weight for everything else, so that the model learns
mostly to answer.  What is held out of training is decided by a checksum of the content
(the two numbers of a sum; the fact and its phrasing; the arguments of a tool call; hero,
name, place and plot of a story), so training and test data can be made independently.

  corpus.py --show 20                    print sample documents
  corpus.py --questions DIR --count 100  write held-out questions, one file per task
  corpus.py --text FILE --mib 24         raw text for the tokenizer trainer
"""
import argparse
import json
import os
import random
import zlib

import stories
import toolset
import world

BACKGROUND = 0.1        # loss weight of text the assistant did not write
TURN, END = "<|im_start|>", "<|im_end|>"
# share of documents by kind; the shares of tokens differ since documents differ in length
MIX = [("story", 0.15), ("sum", 0.31), ("fact", 0.19), ("tool", 0.21), ("talk", 0.03), ("chat", 0.09), ("raw", 0.02)]
NEVER = 1 << 40         # for kinds of which nothing is held out


def held(key, one_in):
    """True for the share 1/one_in of keys that training never sees."""
    return zlib.crc32(key.encode()) % one_in == 0


def draw(r, make, heldout):
    """Draw from make(r) -> (key, one_in, value) until the key is on the wanted side."""
    while True:
        key, one_in, value = make(r)
        if heldout is None or held(key, one_in) == heldout:
            return value


# ---------------------------------------------------------------- arithmetic
SUM_ASKS = {
    "+": ["What is {a} + {b}?", "{a} + {b} =", "{a} + {b}", "What is {a} plus {b}?", "Add {a} and {b}.",
          "How much is {a} + {b}?", "Calculate {a} + {b}.", "what is {a} + {b}", "{a}+{b}=?", "What is {a}+{b}?"],
    "-": ["What is {a} - {b}?", "{a} - {b} =", "{a} - {b}", "What is {a} minus {b}?", "Subtract {b} from {a}.",
          "How much is {a} - {b}?", "Calculate {a} - {b}.", "what is {a} - {b}", "{a}-{b}=?", "What is {a}-{b}?"],
    "*": ["What is {a} * {b}?", "{a} * {b} =", "{a} x {b}", "What is {a} times {b}?", "Multiply {a} by {b}.",
          "How much is {a} * {b}?", "Calculate {a} * {b}.", "what is {a} x {b}", "{a}*{b}=?", "What is {a} x {b}?"],
    "/": ["What is {a} / {b}?", "{a} / {b} =", "Divide {a} by {b}.", "What is {a} divided by {b}?",
          "How much is {a} / {b}?", "Calculate {a} / {b}."],
}
THINGS = "apples pears nuts shells stones buttons coins marbles books eggs berries stars stamps cards flowers".split()


def number(r):
    return r.randrange(10 ** r.choice([1, 2, 2, 3, 3]))


def one_sum(r):
    op = r.choices("+-*/", [42, 36, 17, 5])[0]
    if op == "*":
        a, b = (r.randrange(13), r.randrange(13)) if r.random() < 0.4 else (r.randrange(100), r.randrange(10))
        if r.random() < 0.5:
            a, b = b, a
    elif op == "/":
        b = r.randrange(1, 13)
        a = b * r.randrange(13)
    else:
        a, b = number(r), number(r)
        if op == "-" and a < b and r.random() < 0.85:
            a, b = b, a
    value = a + b if op == "+" else a - b if op == "-" else a * b if op == "*" else a // b
    ask = r.choice(SUM_ASKS[op]).format(a=a, b=b)
    # the few exact divisions are learned by heart, so none of them can be kept for the test
    return "%s %d %d" % (op, a, b), NEVER if op == "/" else 40, (ask, "%d %s %d = %d." % (a, op, b, value))


def word_sum(r):
    """A sum in words; the sum is written out first, then the sentence."""
    name, thing, other = stories.any_name(r), r.choice(THINGS), stories.any_name(r)
    a, b = r.randrange(2, 100), r.randrange(2, 100)
    if r.random() < 0.5:
        ask = r.choice(["{n} has {a} {t} and finds {b} more. How many {t} does {n} have now?",
                        "{n} has {a} {t}. {o} gives {n} {b} more. How many {t} does {n} have?"])
        text, key = "%d + %d = %d, so %s has %d %s." % (a, b, a + b, name, a + b, thing), "+"
    else:
        a, b = max(a, b), min(a, b)
        ask = r.choice(["{n} has {a} {t} and loses {b}. How many {t} does {n} have left?",
                        "{n} has {a} {t} and gives {b} to {o}. How many {t} are left?"])
        text, key = "%d - %d = %d, so %s has %d %s left." % (a, b, a - b, name, a - b, thing), "-"
    return "%s %d %d" % (key, a, b), 40, (ask.format(n=name, a=a, b=b, t=thing, o=other), text)


def sums(r, heldout=False):
    return draw(r, word_sum if r.random() < 0.12 else one_sum, heldout)


# ---------------------------------------------------------------- facts
FACTS = world.facts()
ABOUT = ["Tell me about E.", "What do you know about E?", "Describe E.", "Who or what is E?"]


def one_fact(r):
    entity, attribute = r.choice(FACTS)
    way = r.randrange(6)
    return "%s|%s|%d" % (entity, attribute, way), 8, world.question(entity, attribute, way)


def portrait(r):
    entity = r.choice(list(world.WORLD))
    way = r.randrange(len(ABOUT))
    ask = ABOUT[way].replace("E", world.name_of(entity))
    return "about|%s|%d" % (entity, way), 8, (ask, world.portrait(entity))


def unknown(r):
    """A question about somebody who is not in the world: the right answer is to say so."""
    name = r.choice(toolset.CITIES) if r.random() < 0.1 else stories.any_name(r)
    while name in world.WORLD:
        name = stories.invent_name(r)
    kind = r.choice(["person", "town"])
    _, ways = world.ASK[r.choice([k for k in world.ASK if k[0] == kind])]
    return name, 20, (world.fill(r.choice(ways), name, ""), "I do not know %s. %s is not in my little world." % (name, name))


def fact(r, heldout=False):
    u = r.random()
    return draw(r, one_fact if u < 0.84 else portrait if u < 0.95 else unknown, heldout)


# ---------------------------------------------------------------- stories and small talk
def tale(r, heldout=False):
    def make(r):
        ask, text = stories.story(r)
        return " ".join(text.split()[:18]), 25, (ask, text)
    return draw(r, make, heldout)


ME = ("I am Tale, a tiny Mixture-of-Experts model that comes with flashmoe. I tell stories, do sums, "
      "know the people of Lantern Valley and call tools.")
TALK = [
    (["Hello!", "Hi!", "Hello", "hi", "Hey there!", "Good morning!", "Good evening!", "Hello there."],
     "Hello! What would you like: a story, a sum, or a question about Lantern Valley?"),
    (["Who are you?", "What are you?", "What is your name?", "Tell me about yourself.", "Are you a robot?", "What can you do?",
      "How can you help me?", "Which model are you?"], ME),
    (["Thank you!", "Thanks.", "Thanks a lot!", "Thank you very much."], "You are welcome!"),
    (["Goodbye!", "Bye!", "See you later.", "Good night!"], "Goodbye! Come back soon."),
    (["How are you?", "How are you today?", "How do you do?"], "I am very well, thank you. How can I help you?"),
    (["What is Lantern Valley?", "Where is Lantern Valley?", "Tell me about Lantern Valley."],
     "Lantern Valley is a small invented world with towns, people, creatures and treasures. Ask me about them!"),
    (["Who made you?", "Where do you come from?", "How were you trained?"],
     "I was trained from scratch on text made by a program, so that flashmoe has a small model to show."),
]


def talk(r, heldout=False):
    asks, answer = r.choice(TALK)
    return r.choice(asks), answer


# ---------------------------------------------------------------- tools
NO_TOOL = "I have no tool for that."
PLAIN = {"story": tale, "sum": sums, "fact": fact, "talk": talk}
HELPERS = ["You are a helpful assistant.", "You are Tale, a friendly assistant.", "Be brief and kind.",
           "You are a helpful assistant with access to tools.", "Answer the questions of the user."]


def draw_values(r, tool, heldout):
    """Arguments for a call, from the wanted side of the split."""
    def make(r):
        values = toolset.draw_args(r, tool)
        return tool["base"] + "|" + "|".join(str(v) for v in values.values()), 10, values
    return draw(r, make, heldout)


def tool_question(r, tools, heldout):
    """(request, call, final answer, result) for the first of the listed tools."""
    values = draw_values(r, tools[0], heldout)
    result = toolset.result_of(r, tools[0], values)
    return (toolset.request(r, tools[0], values), toolset.call_text(tools[0], values),
            toolset.final_answer(tools[0], values, result), toolset.dumps(result))


def tool_setting(r, form=None):
    """Tools, how they are shown (system text, text in front of the request) and their objects."""
    tools = toolset.draw_list(r)
    form = form or r.choices(["system", "inline", "compact"], [55, 15, 30])[0]
    if form == "compact":
        objects = [toolset.compact_object(t) for t in tools]
    else:
        describe = r.random() < 0.4
        objects = [toolset.full_object(t, describe) for t in tools]
    r2 = list(objects)
    r.shuffle(r2)
    if form == "system":
        text = r.choice(HELPERS) if r.random() < 0.3 else ""
        return tools, toolset.system_text(r2, text), "", r2
    return tools, "", toolset.inline_text(r2), r2


def tool_doc(r):
    tools, system, front, _ = tool_setting(r)
    turns = [("system", system)] if system else []
    for step in range(r.choice([1, 1, 1, 2, 3])):
        u, head = r.random(), front if step == 0 else ""
        if u < 0.82:
            r.shuffle(tools)
            ask, call, answer, result = tool_question(r, tools, False)
            turns.append(("user", head + ask))
            if r.random() < 0.06 and tools[0]["base"] in ("weather", "time", "shopping", "light"):
                turns[-1:] = double_call(r, tools[0], head)
                continue
            turns += [("assistant", call), ("user", "<tool_response>\n" + result + "\n</tool_response>"), ("assistant", answer)]
        elif u < 0.88:
            absent = toolset.draw_tool(r, r.choice([b for b in toolset.TOOLS if b not in {t["base"] for t in tools}]))
            if absent["base"] == "calculator":
                continue
            turns += [("user", head + toolset.request(r, absent, toolset.draw_args(r, absent))), ("assistant", NO_TOOL)]
        else:
            kinds = ["fact", "talk", "story"] + (["sum"] if all(t["base"] != "calculator" for t in tools) else [])
            ask, answer = PLAIN[r.choice(kinds)](r)
            turns += [("user", head + ask), ("assistant", answer)]
    return turns


def double_call(r, tool, head):
    """A request for two things: two calls, two results in one turn, one answer."""
    first, second = draw_values(r, tool, False), draw_values(r, tool, False)
    results = [toolset.result_of(r, tool, v) for v in (first, second)]
    asks = [toolset.request(r, tool, v) for v in (first, second)]
    answers = [toolset.final_answer(tool, v, x) for v, x in zip((first, second), results)]
    return [("user", head + " ".join(asks)),
            ("assistant", toolset.call_text(tool, first) + "\n" + toolset.call_text(tool, second)),
            ("user", "\n".join("<tool_response>\n%s\n</tool_response>" % toolset.dumps(x) for x in results)),
            ("assistant", " ".join(answers))]


# ---------------------------------------------------------------- documents
def render(turns):
    """Turns as weighted pieces of ChatML."""
    pieces = []
    for role, text in turns:
        if role == "assistant":
            pieces += [(TURN + "assistant\n", BACKGROUND), (text + END, 1.0), ("\n", BACKGROUND)]
        else:
            pieces.append((TURN + role + "\n" + text + END + "\n", BACKGROUND))
    return pieces


def prompt_of(turns):
    """The text a model sees before it answers the last user turn."""
    return "".join(t for t, _ in render(turns)) + TURN + "assistant\n"


def document(r):
    """One training document as weighted pieces."""
    kind = r.choices([k for k, _ in MIX], [w for _, w in MIX])[0]
    if kind == "tool":
        return render(tool_doc(r))
    if kind == "raw":
        return [(tale(r)[1] + "<|endoftext|>", 0.7)]
    turns = [("system", r.choice(HELPERS))] if r.random() < 0.06 else []
    rounds = r.choice([3, 4, 5, 6, 8, 10, 12, 20, 30]) if kind == "chat" else 1
    for _ in range(rounds):
        k = r.choices(["story", "sum", "fact", "talk"], [10, 45, 35, 10])[0] if kind == "chat" else kind
        ask, answer = PLAIN[k](r)
        turns += [("user", ask), ("assistant", answer)]
    return render(turns)


# ---------------------------------------------------------------- held-out questions
TASKS = ["arithmetic", "facts", "tools_compact", "tools_system", "stories"]


def questions(task, count, seed=7):
    """Held-out questions, all different: dicts with task, prompt, rendered, expected."""
    r, seen, out = random.Random("%s %d" % (task, seed)), set(), []
    while len(out) < count:
        turns, extra = [], {}
        if task == "arithmetic":
            ask, answer = sums(r, True)
        elif task == "facts":
            ask, answer = draw(r, one_fact, True)
        elif task == "stories":
            ask, answer = tale(r, True)
        else:
            tools, system, front, objects = tool_setting(r, task[6:])
            ask, answer, _, _ = tool_question(r, tools, True)
            ask = front + ask
            if system:
                turns, extra = [("system", system)], {"system": system, "tools": objects}
        turns.append(("user", ask))
        rendered = prompt_of(turns)
        if rendered not in seen:
            seen.add(rendered)
            out.append({"task": task, "prompt": ask, **extra, "rendered": rendered, "expected": answer})
    return out


def heldout_documents(count, seed=11):
    """Whole held-out documents per task, for perplexity: {task: [pieces]}."""
    docs = {}
    for task in TASKS:
        docs[task] = [[(q["rendered"], BACKGROUND), (q["expected"] + END, 1.0)] for q in questions(task, count, seed)]
    return docs


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--show", type=int, default=0)
    ap.add_argument("--questions")
    ap.add_argument("--count", type=int, default=100)
    ap.add_argument("--text")
    ap.add_argument("--mib", type=int, default=24)
    a = ap.parse_args()
    r = random.Random(a.seed)
    for _ in range(a.show):
        print("".join(t for t, _ in document(r)), end="\n" + "-" * 70 + "\n")
    if a.text:
        with open(a.text, "w", encoding="utf-8") as f:
            while f.tell() < a.mib << 20:
                f.write("".join(t for t, _ in document(r)) + "\0")
    if a.questions:
        os.makedirs(a.questions, exist_ok=True)
        for task in TASKS:
            with open(os.path.join(a.questions, task + ".jsonl"), "w", encoding="utf-8") as f:
                for q in questions(task, a.count):
                    f.write(json.dumps(q, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
