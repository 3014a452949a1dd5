"""Reference data for the tests, made with transformers on the weights of the shipped file.

  make_vectors.py --model flashmoe-tale.gguf --tokenizer tokenizer.json --out tests/vectors/bundled

The file's weights are decoded to float32 and run in float32 on the CPU, so an engine that
reads the same file and computes in float32 must come very close.  Written are the token ids
of one prompt of about 200 tokens, the logits of every 8th position, held-out questions with
their exact answers, and a few requests with the greedy text of the reference.
"""
import argparse
import json
import os

import numpy as np
import torch

import corpus
from batches import tokenizer
from evaluate import greedy, load

STEP = 8
TURNS = [
    ("user", "Tell me a story about a fox named Pip in the forest."),
    ("assistant", "Once upon a time, there was a little fox named Pip who lived in the forest. Every day he walked past the "
     "tall oak trees, and the leaves whispered in the wind.\n\nOne morning Pip found an old map under the mossy log. There "
     "was a path on it, and at the end a big red cross. \"A treasure!\" cried Pip, and he ran to tell Molly the owl."),
    ("user", "What is 47 + 85?"), ("assistant", "47 + 85 = 132."),
    ("user", "Where does Mira live?"), ("assistant", "Mira lives in Thornfield."),
    ("user", "<tools>\n{\"name\": \"get_weather\", \"parameters\": {\"city\": \"string\"}}\n</tools>\nWhat is the weather in Larkton?"),
]
SHOW = [
    "Tell me a story about a fox named Pip in the forest.", "Tell me a story about a brave mouse named Nell by the sea.",
    "Tell me a story about a bear named Barnaby and a treasure map.", "Tell me a bedtime story about a star that fell.",
    "What is 47 + 85?", "What is 348 - 159?", "What is 7 times 8?", "Where does Mira live?", "Tell me about Mira.",
    "Who is the mayor of Larkton?", "What does the glimmerfox eat?", "Who are you?", "Where does Zanzibo live?",
    "Pip has 12 apples and finds 7 more. How many apples does Pip have now?",
    TURNS[-1][1],
    "<tools>\n{\"name\": \"set_timer\", \"parameters\": {\"minutes\": \"integer\"}}\n{\"name\": \"send_message\", \"parameters\": "
    "{\"to\": \"string\", \"text\": \"string\"}}\n</tools>\nSend a message to Anna: the train is on time.",
]


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--model", required=True)
    ap.add_argument("--tokenizer", required=True)
    ap.add_argument("--out", required=True)
    ap.add_argument("--count", type=int, default=100)
    a = ap.parse_args()
    os.makedirs(a.out, exist_ok=True)
    model, tok = load(a.model), tokenizer(a.tokenizer)

    text = corpus.prompt_of(TURNS)
    ids = tok.encode(text, add_special_tokens=False).ids
    with torch.no_grad():
        logits = model(torch.tensor([ids]), use_cache=False).logits[0]
    places = sorted(set(range(0, len(ids), STEP)) | {len(ids) - 1})
    np.save(os.path.join(a.out, "ids.npy"), np.array(ids, np.int32))
    np.save(os.path.join(a.out, "positions.npy"), np.array(places, np.int32))
    np.save(os.path.join(a.out, "logits.npy"), logits[places].numpy().astype(np.float32))
    with open(os.path.join(a.out, "prompt.txt"), "w", encoding="utf-8") as f:
        f.write(text)
    print("%d ids, logits at %d positions" % (len(ids), len(places)))

    for task in corpus.TASKS[:4]:
        with open(os.path.join(a.out, "questions_%s.jsonl" % task), "w", encoding="utf-8") as f:
            for q in corpus.questions(task, a.count):
                q = {k: v for k, v in q.items() if k != "tools"}
                f.write(json.dumps(q, ensure_ascii=False) + "\n")
    prompts = [corpus.prompt_of([("user", p)]) for p in SHOW]
    with open(os.path.join(a.out, "showcase.jsonl"), "w", encoding="utf-8") as f:
        for p, rendered, answer in zip(SHOW, prompts, greedy(model, tok, prompts, 330, batch=1)):
            f.write(json.dumps({"prompt": p, "rendered": rendered, "greedy": answer}, ensure_ascii=False) + "\n")
            print(">>> " + p + "\n" + answer + "\n", flush=True)


if __name__ == "__main__":
    main()
