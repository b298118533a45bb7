#!/usr/bin/env bash
# 100,000 pairs in each format: pairs per second through the loader, and memory at every quarter.
# bench/stream.sh [FOLDER] [PYTHON]   the data are made in FOLDER (two gigabytes, kept) if they are not there yet; with a PYTHON that
#                                     has webdataset, pyarrow and pillow, their loaders run over the same files in turn
set -euo pipefail
cd "$(dirname "$0")/.."
room=${1:-$(mktemp -d)}
python=${2:-}
count=${COUNT:-100000}
cargo build --release --workspace --examples
built=${CARGO_TARGET_DIR:-target}/release
clipguard=$built/clipguard stream=$built/examples/stream
mkdir -p "$room"

made() {
    local format=$1
    [ -d "$room/$format" ] || "$clipguard" export "scenes:$count:side=72" --format "$format" --out "$room/$format"
}

made webdataset
made parquet
made png
last() { find "$room/$1" -maxdepth 1 -name "*.$2" -printf '%f\n' | sort | tail -n 1 | cut -d . -f 1; }
if [ ! -d "$room/gz" ]; then
    mkdir -p "$room/gz"
    for shard in "$room"/webdataset/*.tar; do gzip -1 -c "$shard" >"$room/gz/$(basename "$shard").gz"; done
fi
if [ ! -f "$room/pairs.csv" ]; then
    # Beside the folder of pictures: a table names what lies beside it or below.
    {
        echo "image,caption"
        find "$room/png" -name '*.txt' -printf 'png/%P\n' | sort | while read -r text; do
            printf '%s.png,"%s"\n' "${text%.txt}" "$(<"$room/$text")"
        done
    } >"$room/.pairs.csv"
    mv "$room/.pairs.csv" "$room/pairs.csv"
fi

run() {
    printf '%-12s %-11s ' "$1" "$2"
    shift 2
    "$@"
}

for round in 1 2; do
    echo "round $round"
    tar="$room/webdataset/{00000..$(last webdataset tar)}.tar"
    run webdataset clipguard "$stream" "$tar"
    [ -z "$python" ] || run webdataset peer "$python" bench/peers/stream.py webdataset "$tar"
    run "tar.gz" clipguard "$stream" "$room/gz/{00000..$(last webdataset tar)}.tar.gz"
    parquet="$room/parquet/{00000..$(last parquet parquet)}.parquet"
    run parquet clipguard "$stream" "$parquet"
    [ -z "$python" ] || run parquet peer "$python" bench/peers/stream.py parquet "$room/parquet"
    run folder clipguard "$stream" "$room/png"
    [ -z "$python" ] || run folder peer "$python" bench/peers/stream.py folder "$room/png"
    run csv clipguard "$stream" "$room/pairs.csv"
done
