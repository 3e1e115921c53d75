/* Loads the kernel that a panic starts, as `kexec -s -p` does: load KERNEL INITRAMFS COMMAND-LINE. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/kexec.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int count, char **words)
{
	if (count != 4)
		return 2;
	int kernel = open(words[1], O_RDONLY), initramfs = open(words[2], O_RDONLY);
	if (kernel < 0 || initramfs < 0 ||
	    syscall(SYS_kexec_file_load, kernel, initramfs, strlen(words[3]) + 1, words[3], KEXEC_FILE_ON_CRASH)) {
		perror("note crash: kexec_file_load");
		return 1;
	}
	return 0;
}
