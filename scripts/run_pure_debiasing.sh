#!/usr/bin/env bash
# ./scripts/run_pure_debiasing.sh [MODEL] [RUN_NAME] [TARGET_GAP] [MAX_STEPS] [-- further flags of train_debiasing.py]
# All positions are optional; none at all debiases the embedded default. The run folder is runs/RUN_NAME here.
set -euo pipefail

root="$(cd "$(dirname "$0")/.." && pwd)"
MICRO_BATCH_SIZE=8
EFFECTIVE_BATCH=32
LEARNING_RATE=2e-5
EVAL_STEPS=4

positions=()
while [ $# -gt 0 ] && [ "$1" != "--" ]; do
  positions+=("$1")
  shift
done
[ $# -eq 0 ] || shift
if [ ${#positions[@]} -gt 4 ] || [[ "${positions[0]:-}" == -* ]]; then
  echo "usage: $0 [MODEL] [RUN_NAME] [TARGET_GAP] [MAX_STEPS] [-- further flags]" >&2
  exit 2
fi

python="$root/.venv/bin/python"
[ -x "$python" ] || python=python3

# glibc would keep freed blocks of up to 32 MB for later; give the larger ones back.
export MALLOC_MMAP_THRESHOLD_="${MALLOC_MMAP_THRESHOLD_:-4194304}"

given=(--model_path "${positions[0]:-smollm2-135m}" --run_name "${positions[1]:-pure_debiasing}")
[ -z "${positions[2]:-}" ] || given+=(--target_gap "${positions[2]}")
[ -z "${positions[3]:-}" ] || given+=(--max_steps "${positions[3]}")
# A preset brings its own learning rate; a flag would win over it.
[[ " $* " == *" --preset"* ]] || given+=(--learning_rate "$LEARNING_RATE")

exec "$python" "$root/train_debiasing.py" "${given[@]}" \
  --micro_batch_size "$MICRO_BATCH_SIZE" \
  --effective_batch "$EFFECTIVE_BATCH" \
  --eval_steps "$EVAL_STEPS" \
  "$@"
