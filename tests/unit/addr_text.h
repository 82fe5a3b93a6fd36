#pragma once
/* addr_text: addresses and endpoints of a test, as they are written. */
#include <string.h>

#include <cmocka.h>

#include "lib/addr.h"

static inline struct endpoint ep(const char *s)
{
	struct endpoint e;

	assert_int_equal(endpoint_parse(s, strlen(s), &e), 0);
	return e;
}

static inline struct addr ip(const char *s)
{
	struct addr a;

	assert_int_equal(addr_parse(s, strlen(s), &a), 0);
	return a;
}
