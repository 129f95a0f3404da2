#!/usr/bin/env bash
# Builds every fuzz target into $OUT, with dictionaries and seeds, for OSS-Fuzz, ClusterFuzzLite or
# ci/fuzz-package. Honours SRC, OUT, SANITIZER and LIB_FUZZING_ENGINE.
set -euo pipefail
cd "$SRC/notifreeze"
case ${SANITIZER:-address} in
    none | address | memory | thread) sanitizer=${SANITIZER:-address} ;;
    # Coverage builds bring their own RUSTFLAGS; there is no undefined behaviour sanitizer for Rust.
    *) sanitizer=none ;;
esac
# Another engine than the libFuzzer that libfuzzer-sys brings.
if [ -f "${LIB_FUZZING_ENGINE:-}" ]; then
    export CUSTOM_LIBFUZZER_PATH=$LIB_FUZZING_ENGINE
fi
cargo fuzz build --release --sanitizer "$sanitizer" --features libfuzzer
for corpus in fuzz/corpus/*; do
    target=$(basename "$corpus")
    cp "target/x86_64-unknown-linux-gnu/release/$target" "$OUT/"
    (cd "$corpus" && python3 -m zipfile -c "$OUT/${target}_seed_corpus.zip" ./*)
    if [ -f "fuzz/dict/$target.dict" ]; then
        cp -L "fuzz/dict/$target.dict" "$OUT/"
    fi
    printf '[libfuzzer]\nmax_len = 4096\n' >"$OUT/$target.options"
done
