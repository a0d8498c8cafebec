#!/usr/bin/env bash
# Measure ragengine on a GPU, in one go on a bare machine: parity, latency by stage beside transformers, the decoding
# step against bandwidth, search, memory, threads.  Needs Python 3.11 or later with torch for CUDA, and the wheels that
# benchmarks/README.md lists in $WHEELS; no network.  Prints every table; writes gpu.json, gpu.md and doctor.txt.
#
#   benchmarks/gpu.sh                            everything that fits into 9 minutes, most important first
#   STEPS="models search-large" benchmarks/gpu.sh    some of it (doctor runs always)
#   DEVICE=cpu SIZE=toy benchmarks/gpu.sh        a check that every step runs, on any machine; its figures mean nothing
#
# A step that fails or takes too long says so, and the next one runs.  Exit code 0 where all ran to their end.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

OUT=${OUT:-build/gpu}          # what is written
WHEELS=${WHEELS:-wheels}       # *.whl to install; without the folder, the environment is taken as it is
PYTHON=${PYTHON:-python3}
DEVICE=${DEVICE:-cuda}
SIZE=${SIZE:-full}
LIMIT=${LIMIT:-540}            # seconds in all
THREADS=${THREADS:-$(nproc)}   # of what runs on the CPU

# step:seconds, most important first (`python -m ragengine_bench.gpu --help` lists them; tests is tests/gpu)
ALL="models:150 parity-small:60 latency:150 answer:60 decode:60 tests:75 parity-large:75 families:240 search:90
     memory:40 load:40 batches:100 greedy:60 compile:150 search-large:300"

for name in ${STEPS:-}; do
    [[ $name == doctor || " "$(echo $ALL) == *" $name:"* ]] && continue
    echo "gpu.sh: unknown step $name; the steps are doctor $(echo "$ALL" | sed 's/:[0-9]*//g' | xargs)." >&2
    exit 2
done
if [[ -z ${WORK:-} ]]; then    # models and vectors: gigabytes
    WORK=$(mktemp -d) || exit 1
    trap 'rm -rf "$WORK"' EXIT
fi
SITE=$WORK/site-packages       # dill recognises installed modules by this name and does not pickle them
mkdir -p "$OUT" "$SITE"
export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1 HF_DATASETS_DISABLE_PROGRESS_BARS=1 TOKENIZERS_PARALLELISM=false
export PYTHONUNBUFFERED=1 PYTHONPATH="$SITE:$PWD/engine:$PWD/export:$PWD/benchmarks:$PWD${PYTHONPATH:+:$PYTHONPATH}"
SUMMARY=""
FAILED=0
trap 'exit 130' INT

# NAME SECONDS COMMAND...: run it within its seconds and within what is left of the time
run() {
    local name=$1 most=$2 left start=$SECONDS code
    shift 2
    left=$((LIMIT - SECONDS))
    if ((left < 10)); then
        note "$name: skipped, the $LIMIT seconds are over"
        return 1
    fi
    echo
    timeout --foreground --kill-after=10 "$((most < left ? most : left))" "$@"
    code=$?
    case $code in
        0) note "$name: $((SECONDS - start)) s" 0 ;;
        124 | 130 | 137) note "$name: stopped after $((SECONDS - start)) s" ;;
        *) note "$name: failed with code $code after $((SECONDS - start)) s" ;;
    esac
    return $code
}

# TEXT [0]: add a line to the summary; without the 0 the script fails
note() {
    SUMMARY+="  $1"$'\n'
    [[ ${2:-1} == 0 ]] || FAILED=1
}

# Folders of CUDA's and cuVS's libraries in installed wheels.
cuda_libraries() {
    "$PYTHON" -c '
import pathlib, sys
roots = [pathlib.Path(root) for root in sys.path if root]
found = [str(p) for root in roots for pattern in ("nvidia/*/lib", "*/lib64") for p in sorted(root.glob(pattern))]
print(":".join(dict.fromkeys(found)))'
}

if [[ -d $WHEELS ]]; then
    # --no-deps: what is not in the folder is in the environment already, and pip cannot see that with --target
    run environment 180 "$PYTHON" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir \
        --disable-pip-version-check --upgrade --target "$SITE" "$WHEELS"/*.whl
else
    note "environment: as it is, there is no folder $WHEELS" 0
fi
if ! "$PYTHON" -c 'from importlib.metadata import version; version("ragengine")' 2>/dev/null; then
    # This tree runs without being installed; bundles record its version, so write the metadata that holds it.
    version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
    mkdir -p "$SITE/ragengine-$version.dist-info"
    printf 'Metadata-Version: 2.1\nName: ragengine\nVersion: %s\n' "$version" \
        >"$SITE/ragengine-$version.dist-info/METADATA"
fi
if [[ $DEVICE == cuda ]]; then
    LD_LIBRARY_PATH="$(cuda_libraries)${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
    export LD_LIBRARY_PATH
    nvidia-smi || note "nvidia-smi: failed, is there a driver?"
fi

run doctor 60 "$PYTHON" -c 'from ragengine.cli.main import main; main()' doctor --device "$DEVICE" \
    >"$OUT/doctor.txt" 2>&1
cat "$OUT/doctor.txt"

for step in $ALL; do
    name=${step%:*}
    [[ -z ${STEPS:-} || " $STEPS " == *" $name "* ]] || continue
    if [[ $name == tests ]]; then
        command=(pytest -m gpu -rs -p no:cacheprovider tests/gpu)
    else
        command=(ragengine_bench.gpu "$name" --device "$DEVICE" --size "$SIZE" --threads "$THREADS"
            --output "$OUT" --work "$WORK")
    fi
    run "$name" "${step#*:}" "$PYTHON" -m "${command[@]}"
done

[[ $DEVICE == cuda ]] && nvidia-smi --query-gpu=name,memory.used,memory.total,clocks.sm --format=csv
printf '\n%s s in all; %s\n%s' "$SECONDS" "$OUT/gpu.md" "$SUMMARY"
exit $FAILED
