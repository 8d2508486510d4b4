#!/bin/sh
# Runs as the init of the disk's first boot, which has no boot loader yet: installs it, turns off.
set -eu
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -o remount,rw /
grub-install --target=i386-pc /dev/vda
update-grub
sync
mount -o remount,ro /
echo installed-boot-loader
echo o >/proc/sysrq-trigger
sleep 60
