/* As cheap as `true`, but leaves a mark: one byte more in the file that lies beside this program. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(void) {
    char path[4096];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 8);
    if (length < 0) return 1;
    strcpy(path + length, ".marks");
    int file = open(path, O_WRONLY | O_APPEND | O_CREAT, 0644);
    return file < 0 || write(file, "x", 1) != 1;
}
