#!/bin/sh
# Runs in the new machine's root folder (chroot) after debootstrap and before it becomes a disk.
set -eu

useradd --create-home --shell /bin/bash --uid 1000 admin
printf 'admin:*\nroot:*\n' | chpasswd --encrypted
for home in /root /home/admin; do
    install -d -m 700 "$home/.ssh"
    install -m 600 /root/authorized_keys "$home/.ssh/authorized_keys"
done
chown -R admin:admin /home/admin/.ssh
rm /root/authorized_keys
chmod 440 /etc/sudoers.d/testbed
chmod 600 /etc/ssh/ssh_host_ed25519_key

# Not checked at boot: the kernel replays the journal, and waiting for the device takes 10 s.
printf 'LABEL=root / ext4 errors=remount-ro 0 0\n' >/etc/fstab
printf 'kernel\n' >/etc/hostname
printf '127.0.0.1 localhost\n127.0.1.1 kernel\n' >/etc/hosts
sed -i -e 's/^GRUB_TIMEOUT=.*/GRUB_TIMEOUT=0/' -e 's/^#*GRUB_TERMINAL=.*/GRUB_TERMINAL=console/' \
    -e 's/^#*GRUB_DISABLE_RECOVERY=.*/GRUB_DISABLE_RECOVERY="true"/' \
    -e 's/^GRUB_CMDLINE_LINUX=.*/GRUB_CMDLINE_LINUX="console=ttyS0"/' /etc/default/grub
# Emulated, each script of update-grub takes seconds; none of these finds anything here.
chmod -x /etc/grub.d/05_debian_theme /etc/grub.d/20_linux_xen /etc/grub.d/30_os-prober \
    /etc/grub.d/30_uefi-firmware

# What takes time at boot and no test asks for.
systemctl mask --quiet getty.target serial-getty@ttyS0.service systemd-timesyncd.service \
    apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer \
    dpkg-db-backup.timer systemd-networkd-wait-online.service systemd-update-utmp.service \
    systemd-update-utmp-runlevel.service systemd-pstore.service sys-kernel-debug.mount \
    sys-kernel-tracing.mount sys-kernel-config.mount dev-mqueue.mount modprobe@configfs.service \
    modprobe@drm.service modprobe@efi_pstore.service modprobe@fuse.service
systemctl enable --quiet ssh.service systemd-networkd.service

: >/etc/machine-id
rm -rf /var/cache/apt/* /var/lib/apt/lists/* /usr/share/doc /usr/share/man /usr/share/locale
