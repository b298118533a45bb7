#!/usr/bin/env bash
# First inputs for the fuzz targets: golden and hostile files of the repository, and data sets the program draws itself.
set -euo pipefail
cd "$(dirname "$0")"
golden=../tests/golden/clip

seed() {
    local target=$1
    shift
    mkdir -p "corpus/$target"
    for file in "$@"; do
        [ -f "$file" ] || continue
        [ "$(stat -c %s "$file")" -le 65536 ] || continue
        cp "$file" "corpus/$target/$(sha256sum "$file" | cut -c 1-16)"
    done
}

all() { find "$@" -type f; }

mapfile -t found < <(all "$golden" -name '*.safetensors' -o -path "*/refuse/*" -type f -o -path "*/containers/*" -type f)
seed container "${found[@]}"
seed prior ../tests/golden/clipure/prior_tiny_state.safetensors "${found[@]}"
mapfile -t found < <(all "$golden" -name '*.index.json')
seed shard_index "${found[@]}"
mapfile -t found < <(all "$golden" -name '*config*.json')
seed model_folder "${found[@]}"
mapfile -t found < <(all "$golden/pictures" ../assets -name '*.jpg' -o -name '*.png' -o -name '*.gif' -o -name '*.webp' -o -name '*.bmp')
seed picture "${found[@]}"
mapfile -t found < <(all ../experiments -name '*.toml')
seed recipe "${found[@]}"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
clipguard=${CLIPGUARD:-cargo run --release --quiet --manifest-path ../Cargo.toml --}
$clipguard export scenes:4:side=16 --out "$work/tar"
$clipguard export scenes:4:side=16 --format parquet --out "$work/parquet"
seed shards "$work"/tar/*.tar
gzip -k "$work"/tar/*.tar
seed shards_gz "$work"/tar/*.gz
seed cifar "$work"/tar/*.tar "$work"/tar/*.gz
seed parquet "$work"/parquet/*.parquet
printf 'image,caption\na.png,"a dog, a cat"\nb.png,two\n' >"$work/a.csv"
printf 'filepath\ttitle\na.png\ta dog\n' >"$work/a.tsv"
seed table "$work/a.csv" "$work/a.tsv"
printf 'a photo of a {}.\na {} in the snow\n' >"$work/templates.txt"
printf '["a photo of a {c}.", "{c}"]' >"$work/templates.json"
printf 'cat\ndog\n' >"$work/classes.txt"
seed prompts "$work"/templates.* "$work/classes.txt"
printf 'caf\xc3\xa9 &amp; <end_of_text> \xf0\x9f\x90\xb6 Dr. O\xe2\x80\x99Neil' >"$work/caption.txt"
seed tokenizer "$work/caption.txt"
# Two pictures of 2x2, their labels in front.
printf '\x0a\x00\x00\x08\x01\x00\x00\x00\x02\x01\x02\x00\x00\x08\x03\x00\x00\x00\x02\x00\x00\x00\x02\x00\x00\x00\x02aaaabbbb' >"$work/idx"
seed idx "$work/idx"
cat >"$work/plan.toml" <<'PLAN'
samples = 2
data = ["scenes:2"]
attacks = ["pgd:steps=1"]
PLAN
$clipguard evaluate "$work/plan.toml" --out "$work/run" >/dev/null
seed records "$work"/run/*.jsonl
$clipguard attack --attack pgd:steps=1 --samples 2 --out "$work/attacked" >/dev/null
mapfile -t found < <(all "$work/attacked" -name '*.safetensors')
seed records "${found[@]}"
for target in corpus/*; do echo "$(basename "$target"): $(find "$target" -type f | wc -l)"; done
