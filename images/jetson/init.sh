#!/bin/sh
# What a virtual Jetson does first, in its own namespaces: the file system, the board's folder and the size of its storage
# (or `disk`) are the arguments, and what confines it. Everything that it mounts and starts ends with its namespaces.
set -eu
system=$1 folder=$2 storage=$3
shift 3
root=$folder/merged fixtures=$folder/fixtures

ip link set lo up
hostname virtual-jetson
mount --make-rprivate /
mount -t overlay -o "lowerdir=$system,upperdir=$folder/upper,workdir=$folder/work" overlay "$root"
# What the device put in these places when it ran before must not lead out of it.
for path in proc dev sys run tmp var/tmp etc/lab etc/machine-id; do
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
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mkdir -p "$root/run/sshd" "$root/etc/lab"
if [ "$storage" != disk ]; then
    mount -t tmpfs -o "size=$storage,mode=1777" tmpfs "$root/var/tmp"
fi
chmod 1777 "$root/var/tmp" "$root/tmp"
cp "$fixtures/machine-id" "$root/etc/machine-id"
cp "$folder/keys/host" "$root/etc/lab/host"
cp "$folder/keys/client.pub" "$root/etc/lab/authorized_keys"
chmod 600 "$root/etc/lab/host" "$root/etc/lab/authorized_keys"
exec "$@" "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin HOME=/ /usr/sbin/sshd -D -e -f /etc/sshd_config
