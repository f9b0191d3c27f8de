#!/usr/bin/env bash
# What a program finds in its microVM: `mayfly run examples/inside.sh`.
echo "kernel     $(uname -sr)"
echo "user       $(id -un) ($(id -u)) on $(hostname)"
echo "processors $(nproc)"
echo "memory     $(($(grep -oP 'MemTotal: +\K\d+' /proc/meminfo) / 1024)) MiB"
echo "network    $(ls /sys/class/net | tr '\n' ' ')"
echo "python     $(python3 --version)"
