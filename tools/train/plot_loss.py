"""Loss curve picture from the training log: plot_loss.py loss.csv loss.png"""
import csv
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402


def main():
    rows = list(csv.DictReader(open(sys.argv[1])))
    x = [float(r["tokens"]) / 1e6 for r in rows]
    fig, (a, b) = plt.subplots(1, 2, figsize=(9, 3.2), dpi=80)
    a.plot(x, [float(r["loss"]) for r in rows], lw=0.8, label="weighted loss")
    a.plot(x, [float(r["answer_loss"]) for r in rows], lw=0.8, label="answers only")
    a.set_yscale("log")
    a.set_ylabel("nats per token")
    a.legend()
    b.plot(x, [float(r["max_over_mean_load"]) for r in rows], lw=0.8)
    b.set_ylabel("busiest expert of any layer / mean")
    b.set_ylim(bottom=1)
    for ax in (a, b):
        ax.set_xlabel("million tokens")
        ax.grid(alpha=0.3)
    fig.tight_layout()
    fig.savefig(sys.argv[2], metadata={"Software": None})


if __name__ == "__main__":
    main()
