#!/usr/bin/env bash
# Pure debiasing in one line: run_pure_debiasing.sh [MODEL [RUN_NAME [TARGET_GAP [MAX_STEPS]]]] [-- FLAGS...]
#
# With no argument at all it debiases the embedded model on the built-in prompts. FLAGS go to train_debiasing.py as
# they are and win over the settings below. The folder runs/ is made where you stand; so is a relative MODEL looked up.
set -euo pipefail

model=smollm2-135m
run_name=pure_debiasing
target_gap=0.01
max_steps=20
settings=(--micro_batch_size 16 --effective_batch 32)

usage() {
  echo "usage: $(basename "$0") [MODEL [RUN_NAME [TARGET_GAP [MAX_STEPS]]]] [-- FLAGS...]" >&2
  echo "       MODEL: folder, hub id, .gguf file or smollm2-135m (default)" >&2
}

positions=()
while [ $# -gt 0 ] && [ "$1" != "--" ]; do
  case "$1" in
    -h | --help) usage; exit 0 ;;
    -*) echo "$(basename "$0"): $1 is no position; flags go behind --" >&2; usage; exit 2 ;;
  esac
  positions+=("$1")
  shift
done
if [ $# -gt 0 ]; then shift; fi # the -- itself
if [ ${#positions[@]} -gt 4 ]; then
  echo "$(basename "$0"): ${#positions[@]} positions; there are four at most" >&2
  usage
  exit 2
fi
model=${positions[0]:-$model}
run_name=${positions[1]:-$run_name}
target_gap=${positions[2]:-$target_gap}
max_steps=${positions[3]:-$max_steps}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=python3
if [ -x "$root/.venv/bin/python" ]; then python=$root/.venv/bin/python; fi

exec "$python" "$root/train_debiasing.py" --model_path "$model" --run_name "$run_name" \
  --target_gap "$target_gap" --max_steps "$max_steps" "${settings[@]}" "$@"
