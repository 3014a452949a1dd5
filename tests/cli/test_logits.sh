#!/bin/bash
# The logits command: a correct .npy file or none, whatever is asked of it.
. tests/cli/lib.sh
m=$dir/m.gguf
make_model qwen3moe-a "$m"
logits() { "$flashmoe" logits "$m" --memory 64M "$@"; }

# Reads a .npy of float32 with the standard library alone; prints shape and a digest of the data.
cat >"$dir/npy.py" <<'PY'
import ast, hashlib, struct, sys
for path in sys.argv[1:]:
    b = open(path, "rb").read()
    assert b[:8] == b"\x93NUMPY\x01\x00", path
    n = struct.unpack("<H", b[8:10])[0]
    assert (10 + n) % 64 == 0 and b[9 + n:10 + n] == b"\n"
    h = ast.literal_eval(b[10:10 + n].decode())
    assert h["descr"] == "<f4" and h["fortran_order"] is False
    rows, columns = h["shape"]
    data = b[10 + n:]
    assert len(data) == 4 * rows * columns, (len(data), rows, columns)
    v = struct.unpack(f"<{rows * columns}f", data)
    assert all(x == x and abs(x) < 1e30 for x in v) and len(set(v)) > columns // 2
    print(rows, columns, hashlib.sha256(data).hexdigest())
PY
vocab=$(json_get <("$flashmoe" info "$m" --json) 'j["vocabulary"]')

status 0 logits --ids 1,2,3,4,5,6,7,8,9,10 --out "$dir/a.npy"
[ -s "$out" ] && fail "logits wrote to standard output"
python3 "$dir/npy.py" "$dir/a.npy" >"$dir/a" || fail "not a valid .npy"
says "$dir/a" "^10 $vocab "
printf '1 2\n3\t4,5\n6, 7 8 9 10\n' >"$dir/ids"
status 0 logits --ids-file "$dir/ids" --out "$dir/b.npy" -q
[ -s "$err" ] && fail "--quiet is not: $(cat "$err")"
logits --ids-file - --out "$dir/c.npy" -q <"$dir/ids" 2>"$err" || fail "--ids-file -: $(cat "$err")"
cmp -s "$dir/a.npy" "$dir/b.npy" && cmp -s "$dir/a.npy" "$dir/c.npy" ||
    fail "the same ids gave different logits"

# The same bits for every thread count, reader and budget; every batch is accepted.
for same_bits in "--threads 1" "--threads 4" "--io pread" "--io mmap" "--io uring" "--memory 80M"; do
    # shellcheck disable=SC2086
    status 0 logits --ids 1,2,3,4,5,6,7,8,9,10 --out "$dir/b.npy" $same_bits
    cmp -s "$dir/a.npy" "$dir/b.npy" || fail "other bits with $same_bits"
done
for batch in 1 3 512; do
    status 0 logits --ids 1,2,3,4,5,6,7,8,9,10 --out "$dir/b.npy" --batch $batch
    python3 "$dir/npy.py" "$dir/b.npy" >/dev/null || fail "--batch $batch: not a valid .npy"
done
status 0 logits --ids 5 --out "$dir/b.npy" --kv f32 --kernels reference --experts 2

# An existing file is replaced only by a complete one.
cp "$dir/a.npy" "$dir/keep.npy"
failure logits --ids 1,2,$vocab --out "$dir/keep.npy"
says "$err" "id $vocab \(number 3\).*0 to $((vocab - 1))"
cmp -s "$dir/a.npy" "$dir/keep.npy" || fail "a failed command changed the file"

failure logits --ids 1,-2 --out "$dir/x.npy"
failure logits --ids 1,,2 --out "$dir/x.npy"
failure logits --ids "" --out "$dir/x.npy"
failure logits --ids 1.5 --out "$dir/x.npy"
failure logits --ids-file "$dir/none" --out "$dir/x.npy"
failure logits --ids 1 --out "$dir/no/such/folder/x.npy"
failure logits --ids 1 --out "$dir"
failure "$flashmoe" logits "$dir/none.gguf" --ids 1 --out "$dir/no/such/folder/x.npy" # before a model is loaded for it
says "$err" 'folder/x.npy: No such file'
failure "$flashmoe" logits "$dir/none.gguf" --ids 1 --out "$dir"
says "$err" 'Is a directory'
printf '1 2\0003' >"$dir/ids"
failure logits --ids-file "$dir/ids" --out "$dir/x.npy"
[ -z "$(find "$dir" -name 'x.npy*' -o -name '*.tmp')" ] || fail "left behind: $(find "$dir" -name '*.tmp')"
finish
