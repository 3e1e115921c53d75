#!/bin/busybox sh
# The first program of the guest that is to panic: has the kernel of its dump ready, then goes on as the guest at rest.
/bin/busybox mkdir -p /proc
/bin/busybox mount -t proc proc /proc
/bin/busybox sh -c 'exec >/dev/console 2>&1; /crash/load /crash/vmlinuz /crash/initramfs "$(/bin/busybox cat /crash/command-line)" && echo "note crash: loaded"'
/bin/busybox rm -r /crash
/bin/busybox umount /proc
exec /init.rest
