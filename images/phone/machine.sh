#!/bin/sh
# What a fault-injecting device does first, in its own namespaces: its folder and the size of its storage (or `disk`) are
# the arguments. Everything that it mounts and starts ends with its namespaces.
set -eu
folder=$1 storage=$2

mount --make-rprivate /
mount -t proc proc /proc
mount --bind "$folder/boot_id" /proc/sys/kernel/random/boot_id
if [ "$storage" = disk ]; then
    mount --bind "$folder/data" "$folder/data"
else
    mount -t tmpfs -o "size=$storage,mode=755" tmpfs "$folder/data"
fi
cd "$folder"
echo up
exec >/dev/null 2>&1
trap '' CHLD # whoever loses its parent here is reaped by the kernel
exec sleep infinity
