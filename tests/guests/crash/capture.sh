#!/bin/busybox sh
# The first program of the kernel that a panic started: writes the same memory in several formats to a disk.
/bin/busybox mkdir -p /proc /sys /dev /out /tmp
/bin/busybox --install -s /bin
export PATH=/bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
exec >/dev/console 2>&1
echo "step capture"
while read -r module; do
	insmod "/modules/$module" || echo "note module $module: insmod failed"
done </modules/order
mount -t ext4 /dev/vdd /out || echo "note capture: no disk"
dd if=/proc/vmcore of=/out/vmcore.elf bs=1M 2>/dev/null || echo "note capture: vmcore: failed"
while read -r name words; do
	echo "step $name"
	if [ "$name" = flat ]; then
		/lib/ld /bin/makedumpfile $words /proc/vmcore >/out/flat 2>/out/flat.log
	elif [ "$name" = split ]; then
		/lib/ld /bin/makedumpfile $words /proc/vmcore /out/split.0 /out/split.1 /out/split.2 >/out/split.log 2>&1
	else
		/lib/ld /bin/makedumpfile $words /proc/vmcore "/out/$name" >"/out/$name.log" 2>&1
	fi || echo "note capture: $name: makedumpfile failed"
done </formats
umount /out
sync
echo "captured"
sleep 1000000
