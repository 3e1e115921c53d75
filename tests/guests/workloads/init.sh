#!/bin/busybox sh
# The first program of the guest: devices, modules, file systems, swap; then the keeper takes its place.
/bin/busybox mkdir -p /proc /sys /dev /mnt/tmp /mnt/huge /mnt/hugetlb /mnt/disk /cgroup
/bin/busybox --install -s /bin
export PATH=/bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
exec >/dev/console 2>&1
echo "step modules"
while read -r module; do
	insmod "/modules/$module" || echo "note module $module: insmod failed"
done </modules/order

echo "step mounts"
mkdir -p /dev/shm
mount -t tmpfs tmp /mnt/tmp
mount -t tmpfs -o huge=always huge /mnt/huge
mount -t hugetlbfs none /mnt/hugetlb
mount -t cgroup2 none /cgroup || echo "note mounts: no cgroup2"
mount -t xfs /dev/vda /mnt/disk 2>/dev/null || mount -t ext4 /dev/vda /mnt/disk || echo "note mounts: no disk"

echo "step settings"
echo always >/sys/kernel/mm/transparent_hugepage/enabled
echo always >/sys/kernel/mm/transparent_hugepage/defrag
# Each workload asks for the folios that it needs; a daemon must not collapse or migrate anything later.
echo 0 >/sys/kernel/mm/transparent_hugepage/khugepaged/defrag
echo 1000000000 >/sys/kernel/mm/transparent_hugepage/khugepaged/scan_sleep_millisecs
echo madvise >/sys/kernel/mm/transparent_hugepage/enabled
echo 0 >/proc/sys/kernel/numa_balancing
echo 1 >/proc/sys/vm/unprivileged_userfaultfd
echo 0 >/proc/sys/vm/compaction_proactiveness
if [ -e /dev/vdc ]; then
	mkswap /dev/vdc >/dev/null
fi
if [ -e /sys/block/zram0 ]; then
	echo 64M >/sys/block/zram0/disksize
	mkswap /dev/zram0 >/dev/null && swapon /dev/zram0 || echo "note mounts: no swap"
fi
exec /bin/keeper "$(cat /mode)" /dev/vdb
