#include "daemon/state.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "lib/buf.h"
#include "lib/file.h"

#define STATE_VERSION 1
#define STATE_FILE    "state.json"
#define DISCO_FILE    "disco.key"

void state_done(struct state *s)
{
	key_pair_wipe(&s->machine);
	key_pair_wipe(&s->node);
	key_pair_wipe(&s->old_node);
	key_pair_wipe(&s->disco);
	free(s->login);
	for (size_t i = 0; i < s->n_pins; i++)
		free(s->pin[i].url);
	*s = (struct state){ .lock_fd = -1, .runtime_lock_fd = -1 };
}

void state_free(struct state *s)
{
	int fd, runtime_fd;

	if (!s)
		return;
	free(s->dir);
	free(s->runtime_dir);
	fd = s->lock_fd;
	runtime_fd = s->runtime_lock_fd;
	state_done(s);
	fd_close(runtime_fd);
	fd_close(fd);
	free(s);
}

/* ---- text ---- */

static void put_string(struct buf *out, const char *name, const char *value)
{
	CLEANUP(json_decref) json_t *j = NULL;

	if (!value)
		return;
	buf_printf(out, ",\n\t\"%s\": ", name);
	j = json_string(value);
	if (!j || json_write(j, out) < 0)
		out->bad = true;
}

static void put_private(struct buf *out, const char *name, const struct key_pair *k)
{
	char text[KEY_TEXT_MAX];

	if (key_is_zero(&k->priv))
		return;
	buf_printf(out, ",\n\t\"%s\": \"%s\"", name, key_text(KEY_KIND_PRIVATE, &k->priv, text));
	sodium_memzero(text, sizeof(text));
}

static void put_json(struct buf *out, const char *name, json_t *j)
{
	CLEANUP(json_decref) json_t *own = j;

	buf_printf(out, ",\n\t\"%s\": ", name);
	if (!own || json_write(own, out) < 0)
		out->bad = true;
}

/* Secrets are written straight into the buffer, which the caller wipes; no JSON tree holds them. */
int state_encode(const struct state *s, struct buf *out)
{
	json_t *pins = json_object();

	for (size_t i = 0; i < s->n_pins; i++)
		json_object_set_new(pins, s->pin[i].url,
				    json_key(KEY_KIND_MACHINE, &s->pin[i].key));
	buf_printf(out, "{\n\t\"version\": %d", STATE_VERSION);
	put_private(out, "machine_key", &s->machine);
	put_private(out, "node_key", &s->node);
	put_private(out, "old_node_key", &s->old_node);
	put_json(out, "registered", json_boolean(s->registered));
	put_string(out, "login", s->login);
	put_json(out, "relay_port", json_integer(s->relay_port));
	put_json(out, "disco_port", json_integer(s->disco_port));
	put_json(out, "wireguard_port", json_integer(s->wireguard_port));
	put_json(out, "last_home", json_integer(s->last_home));
	put_json(out, "server_keys", pins);
	if (!s->fresh)
		put_json(out, "want_running", json_boolean(s->want_running));
	put_json(out, "prefs", prefs_to_json(&s->prefs));
	buf_put_str(out, "\n}\n");
	return out->bad ? -ENOMEM : 0;
}

static int read_pair(struct json_slice v, struct key_pair *ret)
{
	int r;

	if (v.len < 2 || v.p[0] != '"')
		return -EBADMSG;
	r = key_parse(KEY_KIND_PRIVATE, v.p + 1, v.len - 2, &ret->priv);
	return r < 0 ? r : key_public(&ret->priv, &ret->pub);
}

static int copy_string(const json_t *j, char **ret)
{
	if (!json_is_string(j) || strlen(json_string_value(j)) != json_string_length(j))
		return -EBADMSG;
	free(*ret);
	*ret = strdup(json_string_value(j));
	return *ret ? 0 : -ENOMEM;
}

static int read_bool(const json_t *j, bool *ret)
{
	if (!json_is_boolean(j))
		return -EBADMSG;
	*ret = json_is_true(j);
	return 0;
}

static int read_port(const json_t *j, uint16_t *ret)
{
	if (!json_is_integer(j) || json_integer_value(j) < 0 ||
	    json_integer_value(j) > UINT16_MAX)
		return -EBADMSG;
	*ret = (uint16_t)json_integer_value(j);
	return 0;
}

static int read_pins(json_t *j, struct state *s)
{
	const char *url;
	struct key key;
	json_t *v;
	int r;

	if (!json_is_object(j))
		return -EBADMSG;
	json_object_foreach(j, url, v) {
		if (!json_is_string(v) || key_parse(KEY_KIND_MACHINE, json_string_value(v),
						    json_string_length(v), &key) < 0)
			return -EBADMSG;
		r = state_pin_set(s, url, &key);
		if (r < 0)
			return r;
	}
	return 0;
}

/* One by one: a preference that another version knows, or took otherwise, costs only itself. One for which there was no
 * memory must not be lost: the next save would be without it. */
static int read_prefs(json_t *j, struct prefs *p)
{
	char why[PREFS_WHY_MAX];
	const char *name;
	json_t *v;

	if (!json_is_object(j))
		return -EBADMSG;
	json_object_foreach(j, name, v) {
		CLEANUP(json_decref) json_t *one = json_object();
		struct prefs change;
		int r = json_object_set(one, name, v) < 0 ? -ENOMEM : prefs_from_json(one, &change, why);

		if (r == -ENOMEM)
			return r;
		if (r == 0)
			prefs_merge(p, &change);
	}
	return 0;
}

static int read_member(struct json_slice name, json_t *j, struct state *s)
{
	if (json_slice_is(name, "version"))
		return json_is_integer(j) && json_integer_value(j) == STATE_VERSION
			       ? 0
			       : -EPROTONOSUPPORT;
	if (json_slice_is(name, "registered"))
		return read_bool(j, &s->registered);
	if (json_slice_is(name, "login"))
		return copy_string(j, &s->login);
	if (json_slice_is(name, "relay_port"))
		return read_port(j, &s->relay_port);
	if (json_slice_is(name, "disco_port"))
		return read_port(j, &s->disco_port);
	if (json_slice_is(name, "wireguard_port"))
		return read_port(j, &s->wireguard_port);
	if (json_slice_is(name, "last_home")) {
		uint16_t home;
		int r = read_port(j, &home);

		s->last_home = r < 0 ? 0 : home;
		return r;
	}
	if (json_slice_is(name, "server_keys"))
		return read_pins(j, s);
	if (json_slice_is(name, "want_running")) {
		s->fresh = false;
		return read_bool(j, &s->want_running);
	}
	if (json_slice_is(name, "prefs"))
		return read_prefs(j, &s->prefs);
	return 0; /* of a later version: it goes at the next save */
}

static int read_any(struct json_slice name, struct json_slice v, struct state *s)
{
	CLEANUP(json_decref) json_t *j = NULL;
	int r;

	if (json_slice_is(name, "machine_key"))
		return read_pair(v, &s->machine);
	if (json_slice_is(name, "node_key"))
		return read_pair(v, &s->node);
	if (json_slice_is(name, "old_node_key"))
		return read_pair(v, &s->old_node);
	r = json_slice_read(v, &j);
	return r < 0 ? r : read_member(name, j, s);
}

static void defaults(struct state *s)
{
	s->lock_fd = s->runtime_lock_fd = -1;
	prefs_default(&s->prefs);
}

int state_decode(struct json_slice text, struct state *ret)
{
	struct json_slice name, v;
	struct json_scan scan;
	struct state s = { 0 };
	bool version = false;
	int r;

	defaults(&s);
	s.fresh = true;
	r = json_scan_object(text, &scan);
	while (r == 0 && json_scan_member(&scan, &name, &v)) {
		version |= json_slice_is(name, "version");
		r = read_any(name, v, &s);
	}
	if (r == 0 && (!json_scan_ok(&scan) || !version || key_is_zero(&s.machine.priv)))
		r = -EBADMSG;
	if (r < 0) {
		state_done(&s);
		return r;
	}
	*ret = s;
	sodium_memzero(&s, sizeof(s));
	return 0;
}

void state_want(struct state *s, bool running)
{
	s->want_running = running;
	s->fresh = false;
}

/* ---- pins, keys ---- */

const struct key *state_pin_find(const struct state *s, const char *url)
{
	for (size_t i = 0; i < s->n_pins; i++) {
		if (strcmp(s->pin[i].url, url) == 0)
			return &s->pin[i].key;
	}
	return NULL;
}

int state_pin_set(struct state *s, const char *url, const struct key *key)
{
	char *copy;

	for (size_t i = 0; i < s->n_pins; i++) {
		if (strcmp(s->pin[i].url, url) == 0) {
			s->pin[i].key = *key;
			return 0;
		}
	}
	copy = strdup(url);
	if (!copy)
		return -ENOMEM;
	if (s->n_pins == ARRAY_SIZE(s->pin)) {
		free(s->pin[0].url);
		memmove(&s->pin[0], &s->pin[1], (--s->n_pins) * sizeof(s->pin[0]));
	}
	s->pin[s->n_pins++] = (struct state_pin){ copy, *key };
	return 0;
}

void state_pin_drop(struct state *s, const char *url)
{
	for (size_t i = 0; i < s->n_pins; i++) {
		if (strcmp(s->pin[i].url, url) != 0)
			continue;
		free(s->pin[i].url);
		s->n_pins--;
		memmove(&s->pin[i], &s->pin[i + 1], (s->n_pins - i) * sizeof(s->pin[0]));
		return;
	}
}

void state_forget_node(struct state *s)
{
	key_pair_wipe(&s->node);
	key_pair_wipe(&s->old_node);
	s->registered = false;
	free(TAKE(s->login));
}

/* ---- files ---- */

int state_path(const struct state *s, const char *name, char *out, size_t max)
{
	return snprintf(out, max, "%s/%s", s->dir, name) >= (int)max ? -ENAMETOOLONG : 0;
}

int state_save(const struct state *s)
{
	struct buf b = { .max = STATE_BYTES_MAX };
	char path[PATH_MAX];
	int r;

	/* Room at once, so that growing leaves no copies of keys behind. */
	r = buf_reserve(&b, 16384);
	if (r == 0)
		r = state_encode(s, &b);
	if (r == 0)
		r = state_path(s, STATE_FILE, path, sizeof(path));
	if (r == 0)
		r = file_replace(path, buf_data(&b), b.len, 0600);
	buf_done_secret(&b);
	return r;
}

int state_save_disco(const struct state *s)
{
	char path[PATH_MAX], text[KEY_TEXT_MAX];
	int r;

	if (snprintf(path, sizeof(path), "%s/%s", s->runtime_dir, DISCO_FILE) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	key_text(KEY_KIND_PRIVATE, &s->disco.priv, text);
	/* The folder is in memory: there is no disk to wait for. */
	r = file_replace_unsynced(path, text, strlen(text), 0600);
	sodium_memzero(text, sizeof(text));
	return r;
}

int state_new_disco(struct state *s)
{
	key_pair_generate(&s->disco);
	return state_save_disco(s);
}

static int load_disco(struct state *s)
{
	struct buf b = { .max = 2 * KEY_TEXT_MAX };
	char path[PATH_MAX];
	int r;

	if (snprintf(path, sizeof(path), "%s/%s", s->runtime_dir, DISCO_FILE) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	r = file_read(path, KEY_TEXT_MAX, &b);
	if (r == 0)
		r = key_parse(KEY_KIND_PRIVATE, (const char *)buf_data(&b), b.len, &s->disco.priv);
	if (r == 0)
		r = key_public(&s->disco.priv, &s->disco.pub);
	buf_done_secret(&b);
	if (r == -ENOMEM)
		return r;
	return r < 0 ? state_new_disco(s) : 0; /* nothing there, or nothing of use */
}

static int load_or_make(struct state *s)
{
	struct buf b = { .max = STATE_BYTES_MAX };
	char path[PATH_MAX];
	int r;

	r = state_path(s, STATE_FILE, path, sizeof(path));
	if (r == 0)
		r = file_read(path, STATE_BYTES_MAX - 1, &b);
	if (r == -ENOENT) {
		key_pair_generate(&s->machine);
		s->fresh = true;
		r = state_save(s);
	} else if (r == 0) {
		struct state loaded;

		r = state_decode((struct json_slice){ (const char *)buf_data(&b), b.len }, &loaded);
		if (r == 0) {
			loaded.dir = s->dir;
			loaded.runtime_dir = s->runtime_dir;
			loaded.lock_fd = s->lock_fd;
			loaded.runtime_lock_fd = s->runtime_lock_fd;
			*s = loaded;
			sodium_memzero(&loaded, sizeof(loaded));
		}
	}
	buf_done_secret(&b);
	return r;
}

static int make_dir(const char *path)
{
	struct stat st;

	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return -errno;
	if (stat(path, &st) < 0)
		return -errno;
	return S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
}

/* A file that only we can open: flock() asks for no right to write, so that anybody could lock the folder itself. */
static int take_lock(const char *dir, const char *name, int *ret_fd)
{
	char path[PATH_MAX];

	if (snprintf(path, sizeof(path), "%s/%s", dir, name) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	/* For reading: a folder that has become read-only does not keep the mesh down. */
	*ret_fd = open(path, O_RDONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (*ret_fd < 0)
		return -errno;
	if (flock(*ret_fd, LOCK_EX | LOCK_NB) < 0)
		return errno == EWOULDBLOCK ? -EBUSY : -errno;
	return 0;
}

int state_open(const char *dir, const char *runtime_dir, struct state **ret)
{
	CLEANUP(state_free) struct state *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return -ENOMEM;
	defaults(s);
	s->dir = strdup(dir);
	s->runtime_dir = strdup(runtime_dir);
	if (!s->dir || !s->runtime_dir)
		return -ENOMEM;
	r = make_dir(dir);
	if (r == 0)
		r = make_dir(runtime_dir);
	if (r == 0)
		r = take_lock(dir, "lock", &s->lock_fd);
	if (r == 0) { /* the disco key is there, and the names of what is in the kernel; it may be the same folder */
		r = take_lock(runtime_dir, "runtime-lock", &s->runtime_lock_fd);
		r = r == -EBUSY ? -EADDRINUSE : is_shortage(r) ? r : 0; /* one that cannot be had keeps nobody down */
	}
	if (r == 0)
		r = load_or_make(s);
	if (r == 0)
		r = load_disco(s);
	if (r < 0)
		return r;
	*ret = TAKE(s);
	return 0;
}
