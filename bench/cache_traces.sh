#!/bin/sh
# Makes the routing traces of docs/benchmarks.md in FOLDER and replays them.
#
#     bench/cache_traces.sh FOLDER [BUDGETS]      (6%,15%,30%,50% when left out)
#
# Needs build/tools/cache_replay (`make tools`) and Python 3 with numpy. 40 layers of 256 experts, 8 per
# token, unless said otherwise. Published for models of this kind: neighbours share 24 to 38 % of a token's
# experts, 62 of 256 experts cover 80 % of the choices, 22 to 108 depending on the layer.
set -eu
folder=$1
budgets=${2:-6%,15%,30%,50%}
here=$(cd "$(dirname "$0")/.." && pwd)
synth() {
    name=$1
    shift
    [ -s "$folder/$name.fmr" ] || ${PYTHON:-python3} "$here/tools/trace_synth.py" "$folder/$name.fmr" --report "$@"
}
mkdir -p "$folder"
synth uniform --turns 512:700
synth published --popularity 1.0 --topic 0.7 --drift 0.9 --drift-tokens 3 --turns 512:400,200:400,1500:400 \
    --topic-tokens 400 --topics 6
synth chat --popularity 0.7 --topic 1.0 --drift 0.9 --drift-tokens 2 --turns 100:300,100:300,2000:300,50:300 \
    --topic-tokens 150 --topics 8
synth long-prompt --popularity 0.9 --topic 0.8 --drift 0.9 --drift-tokens 3 --turns 64:200,4096:300 --batch 1024
synth slow-drift --popularity 0.4 --topic 0.3 --drift 1.0 --drift-tokens 60 --turns 512:800
synth fixed-popularity --popularity 1.2 --turns 512:800
synth two-sizes --popularity 1.0 --topic 0.7 --drift 0.9 --drift-tokens 3 --turns 512:400,1500:400 \
    --topic-tokens 400 --topics 6 --sizes 1769472,1769472,2039808
# The policy's two half-lives and their shares were chosen on the traces above. These were made afterwards,
# with other shapes and other mixtures, and nothing was changed after they had been replayed.
synth unseen-a --seed 101 --popularity 0.9 --topic 0.9 --drift 0.7 --drift-tokens 6 --turns 300:300,900:300 \
    --topic-tokens 250 --topics 5
synth unseen-b --seed 102 --layers 24 --experts 128 --used 4 --popularity 0.6 --topic 0.9 --drift 1.1 \
    --drift-tokens 4 --turns 64:600,2048:300 --topic-tokens 100 --topics 10
synth unseen-c --seed 103 --layers 30 --experts 512 --used 10 --popularity 1.1 --topic 0.5 --drift 0.6 \
    --drift-tokens 20 --turns 700:400
synth unseen-d --seed 104 --popularity 0.8 --topic 1.2 --drift 0.4 --drift-tokens 2 \
    --turns 100:200,100:200,100:200,1000:200 --topic-tokens 60 --topics 20
for name in uniform published chat long-prompt slow-drift fixed-popularity two-sizes \
    unseen-a unseen-b unseen-c unseen-d; do
    "$here/build/tools/cache_replay" --budget "$budgets" "$folder/$name.fmr"
done
