#!/bin/bash
# quantize: killed at ten random moments, a full disk, what is refused, an unfinished file, importance.
. tests/cli/lib.sh
source=$dir/source.gguf
cp model/flashmoe-tale.gguf "$source"
q() { "$flashmoe" quantize "$source" "$1" --to Q4_K --experts Q4_0 -q; }

# ---- whole, and killed ---------------------------------------------------------------------------
status 0 q "$dir/whole.gguf"
[ -e "$dir/whole.gguf.part" ] && fail "a part is left behind"
[ -e "$dir/whole.gguf.part.journal" ] && fail "a journal is left behind"
says_not "$err" .
status 0 "$flashmoe" info "$dir/whole.gguf" --json
same "types" "$(json_get "$out" '" ".join(sorted(t["type"] for t in j["types"]))')" "F32 Q4_0 Q4_K"
status 0 "$flashmoe" run "$dir/whole.gguf" --memory 64M -p "Tell me a story." -n 8 --temp 0

# The slowest type on one thread: what was written is put down for good every quarter of a second, and a run must last
# for several of them on any machine, or nothing is there to go on from.
slow() { "$flashmoe" quantize "$source" "$1" --to Q2_K -t 1; }
began=$(date +%s%N)
status 0 slow "$dir/wholek.gguf"
took=$((($(date +%s%N) - began) / 1000000)) # ms
seed=${FM_TEST_SEED:-$RANDOM}
RANDOM=$seed
n_killed=0
n_resumed=0
for kill in 1 2 3 4 5 6 7 8 9 10; do
    [ -e "$dir/killed.gguf" ] && [ ! -e "$dir/killed.gguf.part.journal" ] && rm "$dir/killed.gguf"
    ms=$((20 + RANDOM % (took / 3 + 20)))
    { timeout -s KILL "$((ms / 1000)).$(printf %03d $((ms % 1000)))" \
        "$flashmoe" quantize "$source" "$dir/killed.gguf" --to Q2_K -t 1 >"$out" 2>"$err"
        got=$?
    } 2>/dev/null # bash's "Killed"
    [ $got -eq 137 ] && n_killed=$((n_killed + 1))
    grep -q 'going on with' "$err" && n_resumed=$((n_resumed + 1))
    # Killed or not, there is never a file under this name that is not the whole one.
    if [ -e "$dir/killed.gguf" ]; then
        cmp -s "$dir/killed.gguf" "$dir/wholek.gguf" || fail "a file that is not whole (seed $seed, kill $kill)"
    elif [ -e "$dir/killed.gguf.part" ]; then
        head -c 4 "$dir/killed.gguf.part" >"$dir/magic"
        if [ "$(cat "$dir/magic")" != GGUF ]; then
            failure "$flashmoe" info "$dir/killed.gguf.part"
            says "$err" 'killed.gguf.part.*(not a whole model|not a GGUF file)'
        fi
    fi
done
[ -e "$dir/killed.gguf" ] && [ ! -e "$dir/killed.gguf.part.journal" ] || status 0 slow "$dir/killed.gguf"
cmp "$dir/killed.gguf" "$dir/wholek.gguf" || fail "killed $n_killed times, then other bytes (seed $seed)"
[ "$n_killed" -ge 5 ] || fail "only $n_killed of ten were killed in time (seed $seed, $took ms)"
[ "$n_resumed" -ge 2 ] || fail "only $n_resumed of ten went on with a part (seed $seed, $took ms)"
cmp -s "$source" model/flashmoe-tale.gguf || fail "the source was changed"

# Ctrl-C: status 130, a part that goes on.
timeout -s INT 0.4 "$flashmoe" quantize "$source" "$dir/int.gguf" --to Q4_K --experts Q4_0 >"$out" 2>"$err"
if [ -e "$dir/int.gguf.part" ]; then
    says "$err" 'interrupted'
    status 0 q "$dir/int.gguf"
fi
cmp -s "$dir/int.gguf" "$dir/whole.gguf" || fail "other bytes after Ctrl-C"

# ---- a full disk ---------------------------------------------------------------------------------
full() { FM_FAULT=write:enospc:nth=$1 "$faulty" quantize "$source" "$dir/full.gguf" --to Q4_K --experts Q4_0 -q; }
for nth in 1 2 9 60; do
    failure full $nth
    says "$err" 'full\.gguf\.part.*No space left on device'
    [ -e "$dir/full.gguf" ] && fail "a destination after a full disk"
done
says "$err" 'goes on from what reached the disk'
status 0 q "$dir/full.gguf"
cmp -s "$dir/full.gguf" "$dir/whole.gguf" || fail "other bytes after a full disk"

# A disk that loses what it was given says so once; a second fsync works. Sync 1 is that of the journal's header.
lost() { FM_FAULT=sync:eio:nth=$1 "$faulty" quantize "$source" "$dir/lost.gguf" --to Q4_K --experts Q4_0; }
failure lost 2
says "$err" 'lost\.gguf\.part: writing to the device: Input/output error'
status 0 "$flashmoe" quantize "$source" "$dir/lost.gguf" --to Q4_K --experts Q4_0
says_not "$err" 'going on with' # nothing of it can be counted on
cmp -s "$dir/lost.gguf" "$dir/whole.gguf" || fail "other bytes after a lost write"
if [ "$(id -u)" -eq 0 ] && mkdir "$dir/small" && mount -t tmpfs -o size=6m tmpfs "$dir/small" 2>/dev/null; then
    failure q "$dir/small/x.gguf"
    says "$err" 'x\.gguf: needs .* free'
    [ -e "$dir/small/x.gguf.part" ] && fail "a part was begun without room for it"
    umount "$dir/small"
else
    echo "no tmpfs here: the check of free space was not tried"
fi

# ---- refused -------------------------------------------------------------------------------------
usage_error "$flashmoe" quantize "$source" --to Q8_0
usage_error "$flashmoe" quantize "$source" "$dir/x.gguf"
usage_error "$flashmoe" quantize "$source" "$dir/x.gguf" "$dir/y.gguf" --to Q8_0
failure "$flashmoe" quantize "$source" "$dir/x.gguf" --to Q9_Z
says "$err" 'Q9_Z.*expected one of Q8_0'
failure "$flashmoe" quantize "$source" "$dir/x.gguf" --to IQ2_S
failure "$flashmoe" quantize "$dir/none.gguf" "$dir/x.gguf" --to Q8_0
says "$err" 'none\.gguf'
failure "$flashmoe" quantize "$source" "$dir/no/folder/x.gguf" --to Q8_0
failure q "$dir/whole.gguf"
says "$err" 'whole\.gguf: exists already'
failure "$flashmoe" quantize "$source" "$source" --to Q8_0
cmp -s "$source" model/flashmoe-tale.gguf || fail "the source was changed"

failure full 60 # leaves nothing: full.gguf exists
rm "$dir/full.gguf"
failure full 60
failure "$flashmoe" quantize "$source" "$dir/full.gguf" --to Q4_K
says "$err" 'full\.gguf\.part: was begun with other options: "experts Q4_0, trunk Q4_K"'
touch "$source"
failure q "$dir/full.gguf"
says "$err" 'full\.gguf\.part: was begun from another source, or the source has changed'
printf 'x' | dd of="$dir/full.gguf.part.journal" bs=1 seek=20 conv=notrunc 2>/dev/null
failure q "$dir/full.gguf"
says "$err" 'full\.gguf\.part\.journal: the journal is damaged'
rm "$dir/full.gguf.part.journal"
failure q "$dir/full.gguf"
says "$err" 'full\.gguf\.part: is there without its journal'
rm "$dir/full.gguf.part"
status 0 q "$dir/full.gguf"
cmp -s "$dir/full.gguf" "$dir/whole.gguf" || fail "other bytes after all that"

# A part that was changed behind our back is found when it is read back. One write fails, so what came before is kept.
rm "$dir/full.gguf"
failure full 60:times=1
offset=$(($(stat -c %s "$dir/full.gguf.part") / 200))
printf 'XXXXXXXX' | dd of="$dir/full.gguf.part" bs=1 seek=$((offset + 300000)) conv=notrunc 2>/dev/null
failure q "$dir/full.gguf"
says "$err" 'reads back other than it was written'
[ -e "$dir/full.gguf" ] && fail "a damaged file got its name"

# What a journal speaks of must be there: without a part all begins anew, and a part that was cut is not gone on with.
rm -f "$dir"/full.gguf*
failure full 60:times=1
rm "$dir/full.gguf.part"
status 0 "$flashmoe" quantize "$source" "$dir/full.gguf" --to Q4_K --experts Q4_0
says_not "$err" 'going on with'
cmp -s "$dir/full.gguf" "$dir/whole.gguf" || fail "other bytes after the part was removed"
rm "$dir/full.gguf"
failure full 60:times=1
truncate -s 1000000 "$dir/full.gguf.part"
failure q "$dir/full.gguf"
says "$err" 'full\.gguf\.part: has 1000000 bytes, expected [0-9]+, so it is not what its journal speaks of'
rm "$dir/full.gguf.part"
status 0 q "$dir/full.gguf"
cmp -s "$dir/full.gguf" "$dir/whole.gguf" || fail "other bytes after the part was cut"

# ---- importance ----------------------------------------------------------------------------------
python3 - "$dir" <<'EOF'
import struct, sys
def gguf(path, kind, tensors):
    def s(x): return struct.pack("<Q", len(x)) + x.encode()
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), 1) + s("general.type") + struct.pack("<I", 8) + s(kind)
    data = b""
    for name, dims, values in tensors:
        head += s(name) + struct.pack("<I", len(dims)) + b"".join(struct.pack("<Q", d) for d in dims)
        head += struct.pack("<IQ", 0, len(data))
        data += struct.pack(f"<{len(values)}f", *values)
        data += b"\0" * (-len(data) % 32)
    head += b"\0" * (-len(head) % 32)
    open(path, "wb").write(head + data)
d = sys.argv[1]
name = "blk.0.ffn_gate_exps.weight"
sums = [1.0 if c % 16 == 0 else 0.001 for c in range(512)] * 32
counts = [10.0] * 31 + [0.0]
gguf(d + "/good.imatrix", "imatrix", [(name + ".in_sum2", [512, 32], sums), (name + ".counts", [1, 32], counts)])
gguf(d + "/wide.imatrix", "imatrix", [(name + ".in_sum2", [256, 32], sums[:8192]), (name + ".counts", [1, 32], counts)])
gguf(d + "/half.imatrix", "imatrix", [(name + ".in_sum2", [512, 32], sums)])
gguf(d + "/nan.imatrix", "imatrix", [(name + ".in_sum2", [512, 32], [float("nan")] * 16384), (name + ".counts", [1, 32], counts)])
gguf(d + "/model.imatrix", "model", [(name + ".in_sum2", [512, 32], sums), (name + ".counts", [1, 32], counts)])
EOF
qi() { "$flashmoe" quantize "$source" "$dir/i.gguf" --to Q4_K --experts Q4_0 --importance "$dir/$1.imatrix"; }
failure qi wide
says "$err" 'blk\.0\.ffn_gate_exps\.weight has 256 columns .* the model.s tensor 512 columns and 32 matrices'
failure qi half
says "$err" 'counts is not'
failure qi nan
says "$err" 'expected finite numbers'
failure qi model
says "$err" 'general.type is "model", expected "imatrix"'
failure qi missing
status 0 qi good
says "$err" 'good\.imatrix: knows nothing of [0-9]+ tensors'
# 32 experts of 64 rows of 512 columns, 18 bytes for 32; the last expert met nothing and stays as it was.
span=$(python3 - "$dir/whole.gguf" "$dir/i.gguf" <<'EOF'
import sys
a, b = (open(p, "rb").read() for p in sys.argv[1:])
n = min(len(a), len(b)) - 200000  # the headers differ in length
at = [i for i in range(1, n) if a[-i] != b[-i]]
print(len(at) > 10000, at[-1] - at[0] <= 31 * 64 * 16 * 18)
EOF
)
same "importance changes the tensor that it names" "$span" "True True"
finish
