# The replayer of routing traces against models written from the papers; options and damage.
. tests/cli/lib.sh
replay=$build/tools/cache_replay
command -v python3 >/dev/null || {
    echo "skipped: no python3"
    exit 77
}
status 0 python3 tools/oracle/cache_models.py "$replay" "$dir"
says "$out" 'agree'
status 2 "$replay"
status 2 "$replay" --what "$dir/hand.fmr"
status 1 "$replay" "$dir/absent.fmr"
status 1 "$replay" --budget 12x "$dir/hand.fmr"
status 0 "$replay" --budget 2K,50% --policies flashmoe,Belady "$dir/hand.fmr"
says "$out" 'flashmoe .* %'
finish
