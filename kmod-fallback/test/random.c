// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* Feeds a fuzz target with random bytes, where there is no libFuzzer. */
#include "test.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

int main(int argc, char **argv)
{
	u64 runs = argc > 1 ? number(argv[1]) : 20000, seed = 88172645463325252ULL, n;
	static u8 data[1024];
	size_t i, size;

	for (n = 0; n < runs; n++) {
		for (i = 0; i < sizeof(data); i++) {
			seed ^= seed << 13;
			seed ^= seed >> 7;
			seed ^= seed << 17;
			data[i] = seed >> 32;
		}
		size = 2 + data[1] * 4;
		LLVMFuzzerTestOneInput(data, size);
	}
	printf("%llu random inputs\n", runs);
	return 0;
}
