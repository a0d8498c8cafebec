#!/usr/bin/env bash
# Bring wheels to a machine without a network where little may be carried at a time: in parts, each with room for
# the rest of the repository beside it.  onnxruntime-gpu alone has 255 MB.
#
#   benchmarks/gpu_wheels.sh split WHEEL... FOLDER   here: parts of WHEEL and its checksum, into FOLDER
#   benchmarks/gpu_wheels.sh take FOLDER TARGET      there, each time parts arrived: keep them under TARGET
#   benchmarks/gpu_wheels.sh join TARGET             there, at the end: TARGET/*.whl, each compared with its checksum
#
# FOLDER may lie in the repository (ignored by git), TARGET must not: wheels are no part of it.
set -euo pipefail

PART_BYTES=${PART_BYTES:-$((56 << 20))}

fail() {
    echo "gpu_wheels.sh: $1" >&2
    exit 1
}

split_wheels() { # WHEEL... FOLDER
    local folder="${*: -1}" wheel name count number part
    mkdir -p "$folder"
    for wheel in "${@:1:$#-1}"; do
        name=$(basename "$wheel")
        [[ -f $wheel ]] || fail "$wheel is no file; give wheels, then the folder for their parts."
        count=$((($(stat -c %s "$wheel") + PART_BYTES - 1) / PART_BYTES))
        rm -f "$folder/$name".part-*
        split -b "$PART_BYTES" -d -a 3 --numeric-suffixes=1 "$wheel" "$folder/$name.part-"
        for part in "$folder/$name".part-*; do
            number=${part##*.part-}
            mv "$part" "$part-of-$(printf %03d "$count")"
        done
        (cd "$(dirname "$wheel")" && sha256sum "$name") >"$folder/$name.sha256"
        echo "$name: $count parts"
    done
}

take_parts() { # FOLDER TARGET
    outside "$2"
    mkdir -p "$2/parts"
    cp "$1"/*.sha256 "$1"/*.part-* "$2/parts/"
    echo "$2/parts: $(find "$2/parts" -name '*.part-*' | wc -l) parts"
}

join_parts() { # TARGET
    local sums name parts wanted
    outside "$1"
    for sums in "$1"/parts/*.sha256; do
        [[ -f $sums ]] || fail "$1/parts has no checksum; take the parts first."
        name=$(basename "$sums" .sha256)
        parts=("$1/parts/$name".part-*)
        [[ -f ${parts[0]} ]] || fail "$name has no parts in $1/parts; take them first."
        wanted=$((10#${parts[0]##*-of-}))
        [[ ${#parts[@]} == "$wanted" ]] || fail "$name has ${#parts[@]} of $wanted parts; take the others too."
        cat "${parts[@]}" >"$1/$name.partial"
        if [[ $(sha256sum <"$1/$name.partial") != "$(cut -d' ' -f1 "$sums")  -" ]]; then
            rm "$1/$name.partial"
            fail "$name differs from its checksum; bring its parts again."
        fi
        mv "$1/$name.partial" "$1/$name"
        rm "${parts[@]}" "$sums"
        echo "$1/$name"
    done
}

outside() { # FOLDER: refuse one in the repository
    local root
    root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
    case "$(realpath -m "$1")/" in
        "$root"/*) fail "$1 is in the repository; choose a folder outside, such as /tmp/wheels." ;;
    esac
}

case "${1:-} $#" in
    "split "[3-9] | "split "[1-9][0-9]*) split_wheels "${@:2}" ;;
    "take 3") take_parts "$2" "$3" ;;
    "join 2") join_parts "$2" ;;
    *) fail "say split WHEEL... FOLDER, take FOLDER TARGET, or join TARGET." ;;
esac
