/*
 * json_mutator: for fuzz targets whose input is JSON. Bytes changed at random mostly break the text, and then only the
 * parser is tested; this changes the tree: members go, come, are copied about (also from another input) or get odd values.
 * One time in four the bytes are changed after all. Include it once, in the target's file.
 *
 * Names come from the inputs and from the file that FUZZ_WORDS names, one a line. With JSON_MUTATOR_AFTER_LINE the text
 * begins behind the first line.
 */
#ifndef TESTS_FUZZ_JSON_MUTATOR_H
#define TESTS_FUZZ_JSON_MUTATOR_H

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"

enum { MUTATE_NODES_MAX = 4096, MUTATE_WORDS_MAX = 2048 };

/* libFuzzer's; a replay has none and does not mutate. */
__attribute__((weak)) size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned int seed);
size_t LLVMFuzzerCustomCrossOver(const uint8_t *a, size_t a_len, const uint8_t *b, size_t b_len, uint8_t *out,
				 size_t max, unsigned int seed);

/* A value with where it stands: in an object or an array, or nowhere (the root). */
struct mutate_node {
	json_t *value, *parent;
	const char *name;
	size_t at;
};

static struct {
	uint64_t random;
	struct mutate_node node[MUTATE_NODES_MAX];
	size_t n;
	char *word[MUTATE_WORDS_MAX];
	size_t n_words;
	bool words_read;
} mutate;

static size_t mutate_pick(size_t n)
{
	mutate.random = mutate.random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return n ? (size_t)(mutate.random >> 33) % n : 0;
}

static void mutate_read_words(void)
{
	const char *path = getenv("FUZZ_WORDS");
	FILE *f = path ? fopen(path, "re") : NULL;
	char line[128];

	mutate.words_read = true;
	while (f && mutate.n_words < MUTATE_WORDS_MAX && fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = '\0';
		mutate.word[mutate.n_words] = strdup(line);
		if (mutate.word[mutate.n_words])
			mutate.n_words++;
	}
	if (f)
		fclose(f);
}

static void mutate_list(json_t *v, json_t *parent, const char *name, size_t at)
{
	const char *k;
	json_t *e;
	size_t i;

	if (mutate.n == MUTATE_NODES_MAX)
		return;
	mutate.node[mutate.n++] = (struct mutate_node){ v, parent, name, at };
	json_object_foreach (v, k, e)
		mutate_list(e, v, k, 0);
	json_array_foreach (v, i, e)
		mutate_list(e, v, NULL, i);
}

static const struct mutate_node *mutate_choose(json_t *root)
{
	mutate.n = 0;
	mutate_list(root, NULL, NULL, 0);
	return &mutate.node[mutate_pick(mutate.n)];
}

static json_t *mutate_odd_value(void)
{
	static const json_int_t number[] = { 0, 1, -1, 2, 3, 7, 127, 128, 255, 256, 32767, 65535, 65536, INT32_MAX,
					     INT32_MIN, UINT32_MAX, INT64_C(1) << 53, INT64_MAX, INT64_MIN };
	static const char *const text[] = {
		"", "*", "0.0.0.0/0", "::/0", "100.64.0.2", "100.64.0.3/32", "fd7a:115c:a1e0::2/128", "10.0.0.0/8",
		"10.0.0.1-10.0.0.9", "1.2.3.4:5", "[2001:db8::1]:41641", "127.3.3.40:1", "0001-01-01T00:00:00Z",
		"1970-01-01T00:00:00Z", "2027-01-15T08:00:00Z", "9999-12-31T23:59:59.999999999+23:59", "cap:x",
		"http://127.0.0.1:80/x?y=z", "a.b.", "x\xc3\xa4y", "\x1b[31m", "-", "host-1", "tag:a",
		"nodekey:0202020202020202020202020202020202020202020202020202020202020202",
		"nodekey:0404040404040404040404040404040404040404040404040404040404040404",
		"discokey:0505050505050505050505050505050505050505050505050505050505050505",
		"mkey:0606060606060606060606060606060606060606060606060606060606060606",
	};
	char big[300];

	switch (mutate_pick(10)) {
	case 0:
		return json_null();
	case 1:
		return json_boolean(mutate_pick(2));
	case 2:
		return json_object();
	case 3:
		return json_array();
	case 4:
		memset(big, 'a', sizeof(big));
		return json_stringn(big, mutate_pick(sizeof(big)));
	case 5:
		return json_real((double)mutate_pick(1000) / 7);
	case 6:
		return mutate.n_words ? json_string(mutate.word[mutate_pick(mutate.n_words)]) : json_null();
	case 7:
		return json_integer(number[mutate_pick(ARRAY_SIZE(number))]);
	default:
		return json_string(text[mutate_pick(ARRAY_SIZE(text))]);
	}
}

/* The value, changed a little. */
static json_t *mutate_value(const json_t *v)
{
	int64_t x;
	char s[512];
	size_t n;

	if (json_is_string(v)) {
		n = MIN(json_string_length(v), sizeof(s));
		memcpy(s, json_string_value(v), n);
		return json_stringn_nocheck(s, LLVMFuzzerMutate((uint8_t *)s, n, sizeof(s)));
	}
	if (json_is_integer(v)) {
		x = json_integer_value(v);
		if (mutate_pick(2))
			LLVMFuzzerMutate((uint8_t *)&x, sizeof(x), sizeof(x));
		else
			x = (int64_t)((uint64_t)x + mutate_pick(5) - 2);
		return json_integer(x);
	}
	if (json_is_boolean(v))
		return json_boolean(!json_is_true(v));
	return mutate_odd_value();
}

/* v, ours no more, takes the node's place. */
static void mutate_put(const struct mutate_node *at, json_t **root, json_t *v)
{
	if (!at->parent) {
		json_decref(*root);
		*root = v;
	} else if (at->name) {
		json_object_set_new(at->parent, at->name, v);
	} else {
		json_array_set_new(at->parent, at->at, v);
	}
}

static void mutate_remove(const struct mutate_node *at)
{
	if (at->parent && at->name)
		json_object_del(at->parent, at->name);
	else if (at->parent)
		json_array_remove(at->parent, at->at);
}

/* Something new in the container: v, ours no more, or a few of it. */
static void mutate_insert(json_t *into, const char *name, json_t *v)
{
	size_t times = mutate_pick(16) ? 1 : 1 + mutate_pick(40);

	if (json_is_array(into)) {
		while (times--)
			json_array_insert(into, mutate_pick(json_array_size(into) + 1), v);
	} else if (!name && mutate.n_words) {
		json_object_set(into, mutate.word[mutate_pick(mutate.n_words)], v);
	} else if (name) {
		json_object_set(into, name, v);
	}
	json_decref(v);
}

/* One change; from (it may be the same tree) is where copies are taken. */
static void mutate_tree(json_t **root, json_t *from)
{
	struct mutate_node src = *mutate_choose(from), at;
	json_t *copy = json_deep_copy(src.value);
	char name[128] = "";

	if (src.name)
		snprintf(name, sizeof(name), "%s", src.name);
	at = *mutate_choose(*root);
	switch (mutate_pick(9)) {
	case 0:
	case 8: /* short inputs are fast ones */
		mutate_remove(&at);
		break;
	case 1:
		mutate_put(&at, root, mutate_odd_value());
		break;
	case 2:
		mutate_put(&at, root, TAKE(copy));
		break;
	case 3:
		mutate_insert(at.value, *name ? name : NULL, TAKE(copy));
		break;
	case 4:
		mutate_insert(at.value, NULL, TAKE(copy));
		break;
	case 5:
		mutate_insert(at.value, NULL, mutate_odd_value());
		break;
	default:
		mutate_put(&at, root, mutate_value(at.value));
	}
	json_decref(copy);
}

/* Where the text begins. */
static size_t mutate_start(const uint8_t *p, size_t n)
{
#ifdef JSON_MUTATOR_AFTER_LINE
	const uint8_t *nl = n ? memchr(p, '\n', n) : NULL;

	return nl ? (size_t)(nl + 1 - p) : n;
#else
	(void)p;
	(void)n;
	return 0;
#endif
}

static json_t *mutate_parse(const uint8_t *p, size_t n)
{
	size_t at = mutate_start(p, n);

	return json_loadb((const char *)p + at, n - at, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
}

/* The length, or 0 where there is not so much room. */
static size_t mutate_write(const json_t *root, uint8_t *out, size_t max)
{
	size_t n = json_dumpb(root, (char *)out, max, JSON_COMPACT | JSON_ENCODE_ANY);

	return n <= max ? n : 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned int seed)
{
	size_t at = mutate_start(data, size), n = 0;
	json_t *root;

	mutate.random = seed;
	if (!mutate.words_read)
		mutate_read_words();
	root = mutate_pick(4) ? mutate_parse(data, size) : NULL;
	if (root) {
		for (size_t k = 1 + mutate_pick(4); k; k--)
			mutate_tree(&root, root);
		n = mutate_write(root, data + at, max - at);
		json_decref(root);
	}
	return n ? at + n : LLVMFuzzerMutate(data, size, max);
}

size_t LLVMFuzzerCustomCrossOver(const uint8_t *a, size_t a_len, const uint8_t *b, size_t b_len, uint8_t *out,
				 size_t max, unsigned int seed)
{
	json_t *root = mutate_parse(a, a_len), *other = mutate_parse(b, b_len);
	size_t at = mutate_start(a, a_len), n = 0;

	mutate.random = seed;
	if (root && other && at < max) {
		for (size_t k = 1 + mutate_pick(3); k; k--)
			mutate_tree(&root, other);
		n = mutate_write(root, out + at, max - at);
		memcpy(out, a, at);
	}
	json_decref(root);
	json_decref(other);
	return n ? at + n : 0;
}

#endif
