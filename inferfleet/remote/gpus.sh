# gpus: records of the observation about GPUs, a line each: what status shows of them.
if command -v nvidia-smi >/dev/null 2>&1; then
  nvidia-smi --format=csv,noheader,nounits \
    --query-gpu=index,name,memory.total,memory.used,utilization.gpu,temperature.gpu 2>&1 |
    while IFS= read -r line; do printf 'gpu\t%s\n' "$line"; done
else
  printf 'gpu\tabsent\n'
fi
while read -r key value _; do
  case $key in MemTotal: | MemAvailable:) printf 'fact\t%s\t%s\n' "${key%:}" "$value" ;; esac
done </proc/meminfo
