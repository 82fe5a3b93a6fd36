/* rawudp: headers byte for byte, checksums by another way of adding, what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "daemon/kernel/rawudp.h"

/* A correct checksum makes everything it covers add up to 0xffff. */
static unsigned int total(const uint8_t *p, size_t len, unsigned int sum)
{
	for (size_t i = 0; i < len; i++)
		sum += i % 2 ? p[i] : (unsigned int)p[i] << 8;
	while (sum > 0xffff)
		sum = (sum >> 16) + (sum & 0xffff);
	return sum;
}

static void test_v4(void **state)
{
	struct endpoint a = { addr_v4(192, 0, 2, 1), 41641 }, b = { addr_v4(198, 51, 100, 7), 3478 };
	uint8_t h[RAWUDP_HEADERS_MAX], all[64];
	const char payload[] = "odd"; /* with the zero: even; three bytes: odd */

	(void)state;
	for (size_t len = 3; len < 5; len++) {
		assert_int_equal(rawudp_headers(&a, &b, payload, len, h), 28);
		assert_int_equal(h[0], 0x45);
		assert_int_equal(h[3], 28 + len);
		assert_int_equal(h[9], 17);
		assert_memory_equal(h + 12, a.addr.b, 4);
		assert_memory_equal(h + 16, b.addr.b, 4);
		assert_int_equal(h[20] << 8 | h[21], 41641);
		assert_int_equal(h[22] << 8 | h[23], 3478);
		assert_int_equal(h[24] << 8 | h[25], 8 + len);
		memcpy(all, h + 12, 8 + 8);
		memcpy(all + 16, payload, len);
		assert_int_equal(total(all, 16 + len, 17 + 8 + (unsigned int)len), 0xffff);
	}
}

static void test_v6(void **state)
{
	struct endpoint a = { { 6, { 0x20, 1, 0xd, 0xb8, [15] = 1 } }, 1 };
	struct endpoint b = { { 6, { 0xfd, [15] = 0x99 } }, 65535 };
	uint8_t h[RAWUDP_HEADERS_MAX], all[128];

	(void)state;
	assert_int_equal(rawudp_headers(&a, &b, "abcde", 5, h), 48);
	assert_int_equal(h[0], 0x60); /* the version: 0 here was once what a union made of it */
	assert_int_equal(h[5], 13);
	assert_int_equal(h[6], 17);
	assert_int_equal(h[7], 64);
	assert_memory_equal(h + 8, a.addr.b, 16);
	assert_memory_equal(h + 24, b.addr.b, 16);
	memcpy(all, h + 8, 32 + 8);
	memcpy(all + 40, "abcde", 5);
	assert_int_equal(total(all, 45, 17 + 13), 0xffff);
}

/* A checksum that comes out as 0 is sent as 0xffff: 0 means that there is none. */
static void test_zero_checksum(void **state)
{
	struct endpoint a = { addr_v4(1, 2, 3, 4), 5 }, b = { addr_v4(6, 7, 8, 9), 10 };
	uint8_t h[RAWUDP_HEADERS_MAX], fix[2] = { 0, 0 };
	unsigned int c;

	(void)state;
	rawudp_headers(&a, &b, fix, 2, h);
	c = (unsigned int)h[26] << 8 | h[27];
	fix[0] = (uint8_t)(c >> 8);
	fix[1] = (uint8_t)c;
	rawudp_headers(&a, &b, fix, 2, h);
	assert_int_equal(h[26] << 8 | h[27], 0xffff);
}

static void test_refused(void **state)
{
	struct endpoint a = { addr_v4(1, 2, 3, 4), 5 }, b = { { 6, { 1 } }, 10 }, none = { { 0 }, 1 };
	uint8_t h[RAWUDP_HEADERS_MAX];

	(void)state;
	assert_int_equal(rawudp_headers(&a, &b, "", 0, h), 0);
	assert_int_equal(rawudp_headers(&none, &none, "", 0, h), 0);
	assert_int_equal(rawudp_headers(&a, &a, "", RAWUDP_PAYLOAD_MAX + 1, h), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_v4),
		cmocka_unit_test(test_v6),
		cmocka_unit_test(test_zero_checksum),
		cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
