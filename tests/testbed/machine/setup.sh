#!/bin/sh
# Runs in the new machine's root folder (chroot) after debootstrap and before it becomes an image.
set -eu

# ops: what a deployer should be; admin: sudo without a password; pwadmin: sudo with one.
useradd --create-home --shell /bin/bash --uid 1000 --groups docker ops
useradd --create-home --shell /bin/bash --uid 1001 admin
useradd --create-home --shell /bin/bash --uid 1002 pwadmin
printf 'ops:*\nadmin:*\n' | chpasswd --encrypted
printf 'pwadmin:correct horse\n' | chpasswd
install -d -o ops -g ops -m 755 /opt/inference
chmod 440 /etc/sudoers.d/testbed
rm -f /etc/ssh/ssh_host_*

# Nothing here may touch the kernel, the clock or the network of the machine that runs the tests.
systemctl mask --quiet getty.target console-getty.service systemd-udevd.service \
    systemd-udev-trigger.service systemd-modules-load.service systemd-sysctl.service \
    systemd-timesyncd.service systemd-random-seed.service systemd-remount-fs.service \
    sys-kernel-config.mount sys-kernel-debug.mount sys-kernel-tracing.mount dev-hugepages.mount \
    dev-mqueue.mount apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer fstrim.timer \
    dpkg-db-backup.timer e2scrub_reap.service
systemctl enable --quiet ssh.service docker.service

: >/etc/machine-id
rm -rf /var/cache/apt/* /var/lib/apt/lists/* /usr/share/doc /usr/share/man /usr/share/locale
