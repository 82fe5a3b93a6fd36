#include "coordinator/relaykeep.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/buf.h"
#include "lib/file.h"
#include "lib/filewriter.h"
#include "lib/json.h"
#include "lib/log.h"

#define RELAYKEEP_MAX  (4u << 20) /* more than any source's own limit lets through */
#define RELAYKEEP_HASH 16

struct relaykeep_file {
	const char *source;
	char *path;
	uint8_t hash[RELAYKEEP_HASH]; /* of what is on disk, as far as we know */
	struct buf pending;
};

struct relaykeep {
	char *folder; /* with a slash at its end, or "" */
	struct relaykeep_file *file;
	size_t n, writing; /* which one, while the writer is busy */
	uint8_t hash[RELAYKEEP_HASH]; /* of what it writes */
	struct filewriter *writer;
	struct loop_defer *next;
};

static void relaykeep_hash(const void *p, size_t len, uint8_t out[static RELAYKEEP_HASH])
{
	crypto_generichash(out, RELAYKEEP_HASH, p, len, NULL, 0);
}

/* ---- reading */

static char *relaykeep_path(const struct relaykeep *k, const char *source)
{
	uint8_t hash[RELAYKEEP_HASH];
	char hex[2 * RELAYKEEP_HASH + 1], *path;

	relaykeep_hash(source, strlen(source), hash);
	sodium_bin2hex(hex, sizeof(hex), hash, sizeof(hash));
	return asprintf(&path, "%sderpmap-%s.json", k->folder, hex) < 0 ? NULL : path;
}

static int relaykeep_read(struct relaykeep_file *f, struct derp_map *ret)
{
	CLEANUP(buf_done) struct buf b = { 0 };
	CLEANUP(json_decref) json_t *j = NULL;
	int r = file_read(f->path, RELAYKEEP_MAX, &b);

	if (r == 0)
		r = json_read(buf_data(&b), b.len, RELAYKEEP_MAX, &j);
	if (r == 0)
		r = derp_map_decode(j, ret);
	if (r == 0)
		relaykeep_hash(buf_data(&b), b.len, f->hash);
	return r;
}

int relaykeep_load(struct relaykeep *k, size_t i, const char *source, struct derp_map *ret)
{
	struct relaykeep_file *f = &k->file[i];
	int r;

	f->source = source;
	f->path = relaykeep_path(k, source);
	if (!f->path)
		return -ENOMEM;
	r = relaykeep_read(f, ret);
	if (r < 0 && r != -ENOENT)
		log_warning("relays: %s: what is kept of it in %s is of no use: %s", source, f->path,
			    r == -EBADMSG ? "not a map of relays" :
			    r == -ENOBUFS ? "too large" :
					    strerror(-r));
	return r;
}

/* ---- writing */

static void relaykeep_failed(const struct relaykeep_file *f, int r)
{
	log_warning_errno(r, "relays: %s: cannot keep its map in %s", f->source, f->path);
}

static void relaykeep_on_next(void *data)
{
	struct relaykeep *k = data;

	for (size_t i = 0; i < k->n && !filewriter_busy(k->writer); i++) {
		struct relaykeep_file *f = &k->file[i];
		int r;

		if (!f->pending.len)
			continue;
		k->writing = i;
		relaykeep_hash(buf_data(&f->pending), f->pending.len, k->hash);
		r = filewriter_replace(k->writer, f->path, &f->pending, 0600);
		if (r < 0) {
			relaykeep_failed(f, r);
			buf_done(&f->pending);
		}
	}
}

static void relaykeep_on_written(void *data, int result, uint64_t took_usec)
{
	struct relaykeep *k = data;
	struct relaykeep_file *f = &k->file[k->writing];

	(void)took_usec;
	if (result < 0)
		relaykeep_failed(f, result); /* its next good answer is written again */
	else
		memcpy(f->hash, k->hash, sizeof(f->hash));
	loop_defer_arm(k->next);
}

/* Not at once: before the loop runs its signals are not blocked, and a thread would take them. */
void relaykeep_save(struct relaykeep *k, size_t i, const struct derp_map *m)
{
	struct relaykeep_file *f = &k->file[i];
	bool busy = filewriter_busy(k->writer) && k->writing == i;
	CLEANUP(json_decref) json_t *j = derp_map_encode(m);
	CLEANUP(buf_done) struct buf b = { 0 };
	uint8_t hash[RELAYKEEP_HASH];
	int r = j ? json_write(j, &b) : -ENOMEM;

	if (r == 0 && b.len > RELAYKEEP_MAX)
		r = -ENOBUFS;
	buf_done(&f->pending);
	if (!f->path) /* there was no memory for it */
		return;
	if (r < 0) {
		relaykeep_failed(f, r);
		return;
	}
	relaykeep_hash(buf_data(&b), b.len, hash);
	if (!memcmp(hash, busy ? k->hash : f->hash, sizeof(hash)))
		return;
	f->pending = b;
	b = (struct buf){ 0 };
	loop_defer_arm(k->next);
}

/* ---- life */

int relaykeep_new(struct loop *l, const char *beside, size_t n, struct relaykeep **ret)
{
	CLEANUP(relaykeep_free) struct relaykeep *k = calloc(1, sizeof(*k));
	const char *slash = strrchr(beside, '/');
	int r;

	if (!k)
		return -ENOMEM;
	k->file = calloc(n + 1, sizeof(*k->file));
	k->folder = strndup(beside, slash ? (size_t)(slash - beside) + 1 : 0);
	if (!k->file || !k->folder)
		return -ENOMEM;
	k->n = n;
	r = loop_defer_new(l, relaykeep_on_next, k, &k->next);
	if (r == 0)
		r = filewriter_new(l, relaykeep_on_written, k, &k->writer);
	if (r < 0)
		return r;
	*ret = TAKE(k);
	return 0;
}

void relaykeep_free(struct relaykeep *k)
{
	if (!k)
		return;
	filewriter_free(k->writer);
	for (size_t i = 0; k->file && i < k->n; i++) {
		struct relaykeep_file *f = &k->file[i];
		int r = f->pending.len ? file_replace(f->path, buf_data(&f->pending), f->pending.len, 0600) : 0;

		if (r < 0)
			relaykeep_failed(f, r);
		buf_done(&f->pending);
		free(f->path);
	}
	loop_defer_drop(k->next);
	free(k->folder);
	free(k->file);
	free(k);
}
