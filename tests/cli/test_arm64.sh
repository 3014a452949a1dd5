# The kernels of 64-bit ARM on another processor, in an emulator: products with quantized weights have the same
# bits in all sets of both processors, operations pass their unit tests, sets are there where their instructions
# are. The programs are linked with the C library alone, which comes with the cross compiler.
. tests/cli/lib.sh
cc=aarch64-linux-gnu-gcc
qemu=$(command -v qemu-aarch64 || command -v qemu-aarch64-static)
skip() {
    echo "skipped: $*"
    exit 77
}
[ "$(uname -m)" != aarch64 ] || skip "this processor runs its unit tests itself"
command -v $cc >/dev/null || skip "no $cc"
[ -n "$qemu" ] || skip "no qemu-aarch64"
echo 'int main(void) { return 0; }' >"$dir/empty.c"
$cc -static "$dir/empty.c" -o "$dir/empty" 2>/dev/null || skip "$cc has no C library (libc6-dev-arm64-cross)"

# Matrix products of bytes: known to GCC from version 10, to the emulator from 6.1 on.
i8mm="i8mm "
echo | $cc -march=armv8.2-a+i8mm -E - >/dev/null 2>&1 || i8mm=""
version=$("$qemu" --version | sed -n 's/.*version \([0-9]*\.[0-9]*\).*/\1/p')
[ "$(printf '%s\n' 6.1 "$version" | sort -V | head -n 1)" = 6.1 ] || i8mm=""
[ -n "$i8mm" ] || echo "not tested: i8mm, which this compiler or emulator does not know"
# A processor with dot products and without matrix products.
dot=cortex-a76
"$qemu" -cpu help | grep -q $dot || dot=""
[ -n "$dot" ] || echo "not tested: a processor without matrix products, which this emulator does not have"

# What the caller's make was told is for this processor.
status 0 env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL make -j2 alone MODE=release BUILD="$build/alone/arm64" CC="$cc" \
    CFLAGS=-Itests/arm LDFLAGS=-static
[ "$n_failed" -eq 0 ] || {
    cat "$err"
    finish
}
arm=$build/alone/arm64/alone

on() { # processor, program
    "$qemu" -cpu "$1" "$arm/$2"
}
sets() { # file of hashes
    cut -d ' ' -f 1 "$1" | sort -u | tr '\n' ' '
}
# Hashes that are unlike the first of their kind. Products with float weights in rows are fused in the sets of a
# processor and not in generic, and agree in one layout only (kernel.h).
differences() {
    cat "$@" | awk '
        { is_float = $2 ~ /^(F32|F16|BF16|FP8)/ }
        is_float && $3 == "rows" && $1 == "generic" { next }
        { key = $2 (is_float ? " " $3 : "") " " $4 }
        !(key in hash) { hash[key] = $5; whose[key] = $1 " " $3; next }
        hash[key] != $5 { print $1, $2, $3, $4 " tokens: unlike " whose[key] }'
}

# Two at a time: the longest test of operations beside everything else.
on max unit/test_delta >"$dir/delta" 2>&1 &
delta=$!
status 0 "$build/alone/arm/kernel_hashes" && cp "$out" "$dir/here"
status 0 on max arm/kernel_hashes && cp "$out" "$dir/max"
same "sets with all instructions" "$(sets "$dir/max")" "generic ${i8mm}neon "
[ -z "$dot" ] || {
    status 0 on $dot arm/kernel_hashes && cp "$out" "$dir/dot"
    same "sets with dot products alone" "$(sets "$dir/dot")" "generic neon "
}
same "sets without either" "$(on cortex-a53 arm/kernel_hashes | cut -d ' ' -f 1 | sort -u)" "generic"
for set in ${i8mm} neon; do
    same "hashes of $set" "$(grep -c "^$set " "$dir/max")" "$(grep -c '^generic ' "$dir/here")"
done
differences "$dir/here" "$dir/max" ${dot:+"$dir/dot"} >"$dir/unlike"
same "products that differ" "$(wc -l <"$dir/unlike")" 0
head -n 12 "$dir/unlike"
# One wrong product is noticed.
sed '/^neon Q4_K panels 5 /s/ [0-9a-f]*$/ 0/' "$dir/max" >"$dir/wrong"
differences "$dir/here" "$dir/wrong" >"$dir/found"
says "$dir/found" '^neon Q4_K panels 5 tokens: unlike '

for test in test_ops test_attend test_attend_rows test_index; do
    status 0 on max unit/$test
    [ "$n_failed" -eq 0 ] || grep -v OK "$out"
done
wait $delta || fail "test_delta: $(grep -v OK "$dir/delta")"
finish
