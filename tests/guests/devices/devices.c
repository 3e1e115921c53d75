/* Memory of devices in page tables: persistent memory by file and by itself, and a virtual machine that is told. */
#define _GNU_SOURCE
#include "hold.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define NVDIMM "/sys/bus/nd/"
#define MOUNT "/mnt/dax"

/* The file system comes on a disk of its own; it is copied to the persistent memory. */
static void mount_pmem(void)
{
	static char buffer[MIB];
	int from = open_or_fail("/dev/vdd", O_RDONLY), to = open("/dev/pmem0", O_WRONLY | O_CLOEXEC);
	if (to < 0)
		skip("no persistent memory: errno %d", errno);
	for (ssize_t n; (n = read(from, buffer, sizeof(buffer))) > 0;)
		if (write(to, buffer, n) != n)
			fail("write to persistent memory");
	if (fsync(to))
		fail("fsync of persistent memory");
	close(to);
	mkdir(MOUNT, 0755);
	if (mount("/dev/pmem0", MOUNT, "ext4", 0, "dax=always"))
		skip("mount for DAX: errno %d", errno);
}

static char *map_dax(const char *name, size_t length, int flags)
{
	int fd = open_or_fail(name, O_RDWR | O_CREAT);
	if (fallocate(fd, 0, 0, length))
		fail("fallocate");
	/* As a huge entry needs it. */
	char *room = map_at_huge_boundary(length, 0);
	char *area = mmap(room, length, PROT_READ | PROT_WRITE, flags | MAP_FIXED, fd, 0);
	if (area == MAP_FAILED)
		fail("mmap of a DAX file");
	return area;
}

static void look_at_page(void *address)
{
	look(address, PAGE);
}

/* A file of small pages, shared by two processes, and private with copies in RAM. */
HOLD(dax_small, "dax-file-small", PHASE_DAEMON)
{
	mount_pmem();
	char *area = map_dax(MOUNT "/small", 12 * PAGE, MAP_SHARED);
	touch(area, 8 * PAGE, 3);
	spawn("dax-child", look_at_page, area);
	char *own = map_dax(MOUNT "/small", 12 * PAGE, MAP_PRIVATE);
	look(own, 6 * PAGE);
	touch(own + 2 * PAGE, 2 * PAGE, 5);
}

/* A file of two huge pages: one under a PMD in two processes, the other read only. */
HOLD(dax_huge, "dax-file-huge", PHASE_STATE)
{
	if (access(MOUNT "/small", F_OK))
		skip("no DAX file system");
	char *area = map_dax(MOUNT "/huge", 2 * HUGE_PAGE, MAP_SHARED);
	touch(area, HUGE_PAGE, 7);
	look(area + HUGE_PAGE, PAGE);
	spawn("dax-huge-child", look_at_page, area);
	/* A hole through the middle of what is mapped leaves small entries behind. */
	if (munmap(area + HUGE_PAGE + HUGE_PAGE / 2, PAGE))
		fail("munmap");
}

/* Persistent memory that is a device of its own, in huge entries. */
HOLD(dax_device, "dax-device", PHASE_STATE)
{
	if (!write_text(NVDIMM "drivers/nd_pmem/unbind", "namespace1.0"))
		skip("no second region: errno %d", errno);
	if (!write_text(NVDIMM "devices/dax1.0/mode", "ram") || !write_text(NVDIMM "devices/dax1.0/align", "2097152") ||
	    !write_text(NVDIMM "devices/dax1.0/uuid", "6f2c1a8e-52b0-4b0e-9d15-0d7b7e5c5f3a") ||
	    !write_text(NVDIMM "devices/dax1.0/namespace", "namespace1.0"))
		fail("settings of the DAX device");
	if (!write_text(NVDIMM "drivers/dax_pmem/bind", "dax1.0"))
		fail("bind of the DAX device");
	nap(200);
	int fd = open_or_fail("/dev/dax1.0", O_RDWR);
	char *room = map_at_huge_boundary(2 * HUGE_PAGE, 0);
	if (mmap(room, 2 * HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
		fail("mmap of the DAX device");
	touch(room, HUGE_PAGE + PAGE, 9);
	spawn("dax-dev-child", look_at_page, room);
}

/* A virtual machine: KVM subscribes to the address space that its memory comes from. */
HOLD(machine, "kvm-machine", PHASE_STATE)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm < 0)
		skip("no KVM: errno %d", errno);
	int machine = ioctl(kvm, KVM_CREATE_VM, 0);
	if (machine < 0)
		skip("KVM_CREATE_VM: errno %d", errno);
	char *memory = map_thp(HUGE_PAGE);
	touch(memory, HUGE_PAGE, 1);
	struct kvm_userspace_memory_region region = {
		.memory_size = HUGE_PAGE, .userspace_addr = (uintptr_t)memory,
	};
	if (ioctl(machine, KVM_SET_USER_MEMORY_REGION, &region))
		fail("KVM_SET_USER_MEMORY_REGION");
	int cpu = ioctl(machine, KVM_CREATE_VCPU, 0);
	note("kvm: vCPU %d", cpu);
	/* Memory in the middle is given back: KVM was told. */
	advise(memory + HUGE_PAGE / 2, PAGE, MADV_DONTNEED, "MADV_DONTNEED");
}
