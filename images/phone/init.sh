#!/bin/sh
# What a virtual phone does first, in its own namespaces: the file system, the phone's folder and the size of its storage
# (or `disk`) are the arguments, and what confines it. Everything that it mounts and starts ends with its namespaces.
set -eu
system=$1 folder=$2 storage=$3
shift 3
root=$folder/merged fixtures=$folder/fixtures

ip link set lo up
mount --make-rprivate /
mount -t overlay -o "lowerdir=$system,upperdir=$folder/upper,workdir=$folder/work" overlay "$root"
# What the device put in these places when it ran before must not lead out of it.
for path in proc dev sys system/build.prop data/local/tmp; do
    [ "$(realpath -m "$root/$path")" = "$(realpath "$root")/$path" ]
done
mount -t proc proc "$root/proc"
mount --bind "$fixtures/cpuinfo" "$root/proc/cpuinfo"
mount --bind "$fixtures/boot_id" "$root/proc/sys/kernel/random/boot_id"
for file in cpuinfo sys/kernel/random/boot_id; do
    mount -o remount,bind,ro "$root/proc/$file"
done
mount -o remount,bind,ro "$root/proc" # its root is the root of this machine to sysctl
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero random urandom; do
    : > "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mount --bind "$fixtures/sys" "$root/sys"
mount -o remount,bind,ro "$root/sys"
cp "$fixtures/build.prop" "$root/system/build.prop"
if [ "$storage" != disk ]; then
    mount -t tmpfs -o "size=$storage,mode=771" tmpfs "$root/data"
fi
mkdir -p "$root/data/local/tmp"
chmod 777 "$root/data/local/tmp"
exec "$@" "$root" /system/bin/env -i PATH=/system/bin HOME=/ ANDROID_ROOT=/system ADBD_PORT=5640 \
    /usr/lib/android-sdk/platform-tools/adbd
