#!/bin/busybox sh
# The guest's first process: loads the modules, makes the host's files its root, runs the job, and powers off.
/bin/busybox mkdir -p /proc /sys /dev /mnt
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox dmesg -n 1
while read -r module; do /bin/busybox insmod "$module" || echo "insmod $module failed"; done </modules
/bin/busybox mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,ro,cache=loose hostroot /mnt || echo "no host files"
/bin/busybox mount -t proc proc /mnt/proc
/bin/busybox mount -t sysfs sysfs /mnt/sys
/bin/busybox mount --bind /dev /mnt/dev
/bin/busybox mkdir -p /mnt/dev/shm /mnt/dev/pts
/bin/busybox mount -t tmpfs -o mode=1777 tmpfs /mnt/dev/shm
/bin/busybox mount -t tmpfs tmpfs /mnt/run
for word in $(/bin/busybox cat /proc/cmdline); do
  case "$word" in job=*) job=${word#job=} ;; esac
done
/bin/busybox chroot /mnt /bin/bash "$job"
echo "LAB-EXIT $?"
/bin/busybox poweroff -f
