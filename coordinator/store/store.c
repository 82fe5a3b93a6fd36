#include "coordinator/store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

#include "lib/buf.h"
#include "lib/json.h"
#include "lib/log.h"

#define STORE_APPLICATION_ID 0x4b53434f /* "KSCO" */
#define STORE_VERSION	     2
#define STORE_VALUES_MAX     24
#define STORE_RETRY_SEC	     1
#define STORE_CLOSE_SEC	     10
#define STORE_RESERVE	     (512u << 10) /* several of the largest ops, NODE_HOSTINFO_MAX and what buffers grow by */

/* One entry a version: what brings a database of the version before up to it. */
static const char *const store_migration[STORE_VERSION] = {
	"CREATE TABLE users(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE,"
	" display_name TEXT NOT NULL, email TEXT NOT NULL, picture_url TEXT NOT NULL,"
	" created_at INTEGER NOT NULL);"
	"CREATE TABLE pre_auth_keys(id INTEGER PRIMARY KEY AUTOINCREMENT, user_id INTEGER,"
	" name TEXT NOT NULL UNIQUE, hash BLOB NOT NULL, reusable INTEGER NOT NULL,"
	" ephemeral INTEGER NOT NULL, used INTEGER NOT NULL, created_at INTEGER NOT NULL,"
	" expires_at INTEGER NOT NULL, tags TEXT NOT NULL);"
	"CREATE TABLE nodes(id INTEGER PRIMARY KEY AUTOINCREMENT, user_id INTEGER,"
	" machine_key BLOB NOT NULL, node_key BLOB NOT NULL UNIQUE, disco_key BLOB NOT NULL,"
	" ipv4 TEXT, ipv6 TEXT, hostname TEXT NOT NULL, given_name TEXT NOT NULL,"
	" given_fixed INTEGER NOT NULL, tags TEXT NOT NULL, ephemeral INTEGER NOT NULL,"
	" auth_key_id INTEGER, method INTEGER NOT NULL, created_at INTEGER NOT NULL,"
	" expires_at INTEGER NOT NULL, last_seen_at INTEGER NOT NULL, cap INTEGER NOT NULL,"
	" host_info TEXT NOT NULL, net_info TEXT, home INTEGER NOT NULL, endpoints TEXT NOT NULL);"
	"CREATE TABLE machine_net_info(machine_key BLOB PRIMARY KEY, net_info TEXT NOT NULL,"
	" home INTEGER NOT NULL) WITHOUT ROWID;",
	"ALTER TABLE nodes ADD COLUMN online INTEGER NOT NULL DEFAULT 0;",
};

enum store_stmt {
	STORE_USER_PUT,
	STORE_USER_DEL,
	STORE_AUTHKEY_PUT,
	STORE_AUTHKEY_DEL,
	STORE_NODE_PUT,
	STORE_NODE_DEL,
	STORE_NETINFO_PUT,
	STORE_NETINFO_DEL,
	STORE_STMT_COUNT,
};

static const char *const store_sql[STORE_STMT_COUNT] = {
	[STORE_USER_PUT] = "INSERT INTO users VALUES(?,?,?,?,?,?) ON CONFLICT(id) DO UPDATE SET"
			   " name=excluded.name, display_name=excluded.display_name,"
			   " email=excluded.email, picture_url=excluded.picture_url",
	[STORE_USER_DEL] = "DELETE FROM users WHERE id=?",
	[STORE_AUTHKEY_PUT] = "INSERT INTO pre_auth_keys VALUES(?,?,?,?,?,?,?,?,?,?) ON CONFLICT(id)"
			      " DO UPDATE SET used=excluded.used, expires_at=excluded.expires_at",
	[STORE_AUTHKEY_DEL] = "DELETE FROM pre_auth_keys WHERE id=?",
	[STORE_NODE_PUT] =
		"INSERT INTO nodes VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
		" ON CONFLICT(id) DO UPDATE SET user_id=excluded.user_id, node_key=excluded.node_key,"
		" disco_key=excluded.disco_key, ipv4=excluded.ipv4, ipv6=excluded.ipv6,"
		" hostname=excluded.hostname, given_name=excluded.given_name,"
		" given_fixed=excluded.given_fixed, tags=excluded.tags, ephemeral=excluded.ephemeral,"
		" auth_key_id=excluded.auth_key_id, method=excluded.method,"
		" expires_at=excluded.expires_at, last_seen_at=excluded.last_seen_at,"
		" cap=excluded.cap, host_info=excluded.host_info, net_info=excluded.net_info,"
		" home=excluded.home, endpoints=excluded.endpoints, online=excluded.online",
	[STORE_NODE_DEL] = "DELETE FROM nodes WHERE id=?",
	[STORE_NETINFO_PUT] = "INSERT OR REPLACE INTO machine_net_info VALUES(?,?,?)",
	[STORE_NETINFO_DEL] = "DELETE FROM machine_net_info WHERE machine_key=?",
};

struct store_value {
	int type; /* SQLITE_* */
	int64_t i;
	size_t at, len; /* of the bytes in data */
};

struct store_op {
	struct store_op *next;
	enum store_stmt stmt;
	unsigned int n;
	struct store_value v[STORE_VALUES_MAX];
	struct buf data;
};

struct store_list {
	struct store_op *first, **end;
};

struct store {
	sqlite3 *db;
	sqlite3_stmt *stmt[STORE_STMT_COUNT];
	int lock_fd;

	/* The loop's side. */
	struct store_list pending;
	uint64_t mark; /* of what is pending */
	void *reserve; /* STORE_RESERVE bytes, never touched; NULL: memory is short */
	struct loop_defer *kick;
	struct loop_io *wake;
	loop_fn *on_commit;
	void *data;
	bool started, lost; /* lost: an op could not be queued, memory is ahead of the disk */

	/* Shared, under the mutex. */
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	struct store_list queue;
	uint64_t queued, committed; /* marks */
	bool failing, stop;
	int event_fd;
	pthread_t thread;
};

static void store_op_free(struct store_op *op)
{
	buf_done_secret(&op->data);
	free(op);
}

static void store_list_free(struct store_list *l)
{
	for (struct store_op *op = l->first, *next; op; op = next) {
		next = op->next;
		store_op_free(op);
	}
	*l = (struct store_list){ 0 };
}

static void store_list_append(struct store_list *l, struct store_op *first, struct store_op **end)
{
	if (!l->first)
		l->end = &l->first;
	*l->end = first;
	l->end = end;
}

/* ---- opening */

static int store_errno(int rc)
{
	switch (rc & 0xff) {
	case SQLITE_OK:
	case SQLITE_DONE:
	case SQLITE_ROW:
		return 0;
	case SQLITE_NOMEM:
		return -ENOMEM;
	case SQLITE_FULL:
		return -ENOSPC;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return -EBUSY;
	case SQLITE_READONLY:
		return -EROFS;
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		return -EBADMSG;
	}
	return -EIO;
}

static int store_why(struct store *st, int rc, const char *what, char why[static STORE_WHY_MAX])
{
	int sys = st->db && (rc & 0xff) == SQLITE_IOERR ? sqlite3_system_errno(st->db) : 0;

	snprintf(why, STORE_WHY_MAX, "%s: %s%s%s", what, st->db ? sqlite3_errmsg(st->db) : sqlite3_errstr(rc),
		 sys ? ": " : "", sys ? strerror(sys) : "");
	return store_errno(rc);
}

static int store_exec(struct store *st, const char *sql)
{
	return sqlite3_exec(st->db, sql, NULL, NULL, NULL);
}

static int store_pragma_int(struct store *st, const char *sql, int64_t *ret)
{
	sqlite3_stmt *q;
	int rc = sqlite3_prepare_v2(st->db, sql, -1, &q, NULL);

	if (rc != SQLITE_OK)
		return rc;
	rc = sqlite3_step(q);
	*ret = rc == SQLITE_ROW ? sqlite3_column_int64(q, 0) : 0;
	sqlite3_finalize(q);
	return rc == SQLITE_ROW || rc == SQLITE_DONE ? SQLITE_OK : rc;
}

static int store_lock(struct store *st, const char *path, char why[static STORE_WHY_MAX])
{
	char lock[4096];
	int r;

	if (snprintf(lock, sizeof(lock), "%s.lock", path) >= (int)sizeof(lock))
		return -ENAMETOOLONG;
	st->lock_fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (st->lock_fd < 0) {
		r = -errno;
		snprintf(why, STORE_WHY_MAX, "%.180s: %s", lock, strerror(-r));
		return r;
	}
	if (flock(st->lock_fd, LOCK_EX | LOCK_NB) < 0) {
		snprintf(why, STORE_WHY_MAX, "another coordinator uses %.180s", path);
		return -EBUSY;
	}
	return 0;
}

static int store_migrate(struct store *st, char why[static STORE_WHY_MAX])
{
	int64_t version, app;
	char sql[96];
	int rc;

	rc = store_pragma_int(st, "PRAGMA user_version", &version);
	if (rc == SQLITE_OK)
		rc = store_pragma_int(st, "PRAGMA application_id", &app);
	if (rc != SQLITE_OK)
		return store_why(st, rc, "cannot read it", why);
	if (version > 0 && app != STORE_APPLICATION_ID) {
		snprintf(why, STORE_WHY_MAX, "not a database of kernscale-coordinator");
		return -EBADMSG;
	}
	if (version > STORE_VERSION) {
		snprintf(why, STORE_WHY_MAX, "made by a newer version (its schema is %d, this program knows %d)",
			 (int)version, STORE_VERSION);
		return -EPROTONOSUPPORT;
	}
	for (; version < STORE_VERSION; version++) {
		snprintf(sql, sizeof(sql), "PRAGMA user_version=%d; PRAGMA application_id=%d;",
			 (int)version + 1, STORE_APPLICATION_ID);
		rc = store_exec(st, "BEGIN IMMEDIATE");
		if (rc == SQLITE_OK)
			rc = store_exec(st, store_migration[version]);
		if (rc == SQLITE_OK)
			rc = store_exec(st, sql);
		if (rc == SQLITE_OK)
			rc = store_exec(st, "COMMIT");
		if (rc != SQLITE_OK)
			return store_why(st, rc, "cannot bring its schema up to date", why);
	}
	return 0;
}

static int store_prepare(struct store *st, bool wal, char why[static STORE_WHY_MAX])
{
	int rc, r;

	sqlite3_busy_timeout(st->db, 5000);
	rc = store_exec(st, wal ? "PRAGMA journal_mode=WAL" : "PRAGMA journal_mode=DELETE");
	if (rc == SQLITE_OK)
		rc = store_exec(st, "PRAGMA synchronous=FULL; PRAGMA foreign_keys=OFF;"
				    "PRAGMA trusted_schema=OFF; PRAGMA cache_size=-512");
	if (rc != SQLITE_OK)
		return store_why(st, rc, "cannot open it", why);
	r = store_migrate(st, why);
	if (r < 0)
		return r;
	for (int i = 0; i < STORE_STMT_COUNT; i++) {
		rc = sqlite3_prepare_v3(st->db, store_sql[i], -1, SQLITE_PREPARE_PERSISTENT, &st->stmt[i],
					NULL);
		if (rc != SQLITE_OK)
			return store_why(st, rc, "its tables are not as expected", why);
	}
	return 0;
}

int store_open(const char *path, bool wal, char why[static STORE_WHY_MAX], struct store **ret)
{
	CLEANUP(store_free) struct store *st = calloc(1, sizeof(*st));
	pthread_condattr_t attr;
	mode_t mask;
	int r, rc;

	why[0] = '\0';
	if (!st)
		return -ENOMEM;
	st->lock_fd = st->event_fd = -1;
	pthread_mutex_init(&st->mutex, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC); /* a step back of the wall clock must not delay a retry */
	pthread_cond_init(&st->cond, &attr);
	pthread_condattr_destroy(&attr);
	r = store_lock(st, path, why);
	if (r < 0)
		return r;
	mask = umask(077);
	rc = sqlite3_open_v2(path, &st->db,
			     SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL);
	if (rc == SQLITE_OK)
		r = store_prepare(st, wal, why);
	else
		r = store_why(st, rc, path, why);
	umask(mask);
	if (r < 0)
		return r;
	*ret = TAKE(st);
	return 0;
}

/* ---- loading */

static char *column_text(sqlite3_stmt *q, int i)
{
	const char *s = (const char *)sqlite3_column_text(q, i);

	return strdup(s ? s : "");
}

static void column_key(sqlite3_stmt *q, int i, struct key *ret)
{
	if (sqlite3_column_bytes(q, i) == KEY_LEN)
		memcpy(ret->b, sqlite3_column_blob(q, i), KEY_LEN);
}

static void column_addr(sqlite3_stmt *q, int i, struct addr *ret)
{
	const char *s = (const char *)sqlite3_column_text(q, i);

	if (s)
		addr_parse(s, strlen(s), ret);
}

static int column_strs(sqlite3_stmt *q, int i, struct strs *ret)
{
	CLEANUP(json_decref) json_t *j = NULL;
	const char *s = (const char *)sqlite3_column_text(q, i);
	int r = json_read(s ? s : "", s ? strlen(s) : 0, 1 << 20, &j);

	return r < 0 ? r : strs_from_json(j, 4096, ret);
}

static int column_endpoints(sqlite3_stmt *q, int i, struct node *n)
{
	CLEANUP(strs_done) struct strs list = { 0 };
	int r = column_strs(q, i, &list);

	if (r < 0 || !list.n)
		return r;
	n->endpoint = calloc(list.n, sizeof(*n->endpoint));
	if (!n->endpoint)
		return -ENOMEM;
	for (size_t k = 0; k < list.n && n->n_endpoint < NODE_ENDPOINTS_MAX; k++)
		if (endpoint_parse(list.v[k], strlen(list.v[k]), &n->endpoint[n->n_endpoint]) == 0)
			n->n_endpoint++;
	return 0;
}

static int load_user(sqlite3_stmt *q, struct registry *s)
{
	CLEANUP(registry_user_free) struct registry_user *u = calloc(1, sizeof(*u));
	int r;

	if (!u)
		return -ENOMEM;
	u->id = (uint64_t)sqlite3_column_int64(q, 0);
	u->name = column_text(q, 1);
	u->display = column_text(q, 2);
	u->email = column_text(q, 3);
	u->picture = column_text(q, 4);
	u->created_nsec = sqlite3_column_int64(q, 5);
	if (!u->name || !u->display || !u->email || !u->picture)
		return -ENOMEM;
	r = registry_user_load(s, u);
	if (r == 0)
		(void)TAKE(u);
	return r;
}

static int load_authkey(sqlite3_stmt *q, struct registry *s)
{
	CLEANUP(authkey_free) struct authkey *k = calloc(1, sizeof(*k));
	const char *name = (const char *)sqlite3_column_text(q, 2);
	int r;

	if (!k)
		return -ENOMEM;
	if (!name || strlen(name) != AUTHKEY_NAME_LEN ||
	    sqlite3_column_bytes(q, 3) != AUTHKEY_HASH_LEN)
		return -EBADMSG;
	k->id = (uint64_t)sqlite3_column_int64(q, 0);
	k->user = (uint64_t)sqlite3_column_int64(q, 1);
	memcpy(k->name, name, AUTHKEY_NAME_LEN);
	memcpy(k->hash, sqlite3_column_blob(q, 3), AUTHKEY_HASH_LEN);
	k->reusable = sqlite3_column_int(q, 4);
	k->ephemeral = sqlite3_column_int(q, 5);
	k->used = sqlite3_column_int(q, 6);
	k->created_nsec = sqlite3_column_int64(q, 7);
	k->expiry_nsec = sqlite3_column_int64(q, 8);
	r = column_strs(q, 9, &k->tags);
	if (r == 0)
		r = registry_authkey_load(s, k);
	if (r == 0)
		(void)TAKE(k);
	return r;
}

static int load_node(sqlite3_stmt *q, struct registry *s)
{
	CLEANUP(registry_node_free) struct node *n = calloc(1, sizeof(*n));
	const char *given = (const char *)sqlite3_column_text(q, 8);
	int r;

	if (!n)
		return -ENOMEM;
	if (!given || strlen(given) > NAME_LABEL_MAX)
		return -EBADMSG;
	n->id = (uint64_t)sqlite3_column_int64(q, 0);
	n->user = (uint64_t)sqlite3_column_int64(q, 1);
	column_key(q, 2, &n->machine_key);
	column_key(q, 3, &n->node_key);
	column_key(q, 4, &n->disco_key);
	column_addr(q, 5, &n->v4);
	column_addr(q, 6, &n->v6);
	n->hostname = column_text(q, 7);
	memcpy(n->given, given, strlen(given) + 1);
	n->given_fixed = sqlite3_column_int(q, 9);
	n->ephemeral = sqlite3_column_int(q, 11);
	n->authkey = (uint64_t)sqlite3_column_int64(q, 12);
	n->method = sqlite3_column_int(q, 13) == NODE_METHOD_CLI ? NODE_METHOD_CLI : NODE_METHOD_AUTHKEY;
	n->created_nsec = sqlite3_column_int64(q, 14);
	n->expiry_nsec = sqlite3_column_int64(q, 15);
	n->last_seen_nsec = sqlite3_column_int64(q, 16);
	n->cap = (uint32_t)sqlite3_column_int(q, 17);
	n->hostinfo = column_text(q, 18);
	if (sqlite3_column_type(q, 19) == SQLITE_TEXT)
		n->netinfo = column_text(q, 19);
	n->home = (uint32_t)sqlite3_column_int(q, 20);
	n->online = sqlite3_column_int(q, 22);
	if (!n->hostname || !n->hostinfo)
		return -ENOMEM;
	r = column_strs(q, 10, &n->tags);
	if (r == 0)
		r = column_endpoints(q, 21, n);
	if (r == 0 && registry_node_by_key(s, &n->node_key))
		r = -EEXIST;
	if (r == 0)
		r = registry_node_load(s, n);
	if (r == 0)
		(void)TAKE(n);
	return r;
}

static int load_netinfo(sqlite3_stmt *q, struct registry *s)
{
	struct key machine = { 0 };
	const char *json = (const char *)sqlite3_column_text(q, 1);

	column_key(q, 0, &machine);
	return json ? registry_netinfo_load(s, &machine, json, (uint32_t)sqlite3_column_int(q, 2)) : 0;
}

static int load_sequence(sqlite3_stmt *q, struct registry *s)
{
	const char *table = (const char *)sqlite3_column_text(q, 0);
	uint64_t last = (uint64_t)sqlite3_column_int64(q, 1);

	if (!table)
		return 0;
	if (!strcmp(table, "users"))
		s->last_user = last;
	else if (!strcmp(table, "pre_auth_keys"))
		s->last_authkey = last;
	else if (!strcmp(table, "nodes"))
		s->last_node = last;
	return 0;
}

int store_load(struct store *st, struct registry *s, char why[static STORE_WHY_MAX])
{
	static const struct {
		const char *sql;
		int (*row)(sqlite3_stmt *q, struct registry *s);
	} tables[] = {
		{ "SELECT * FROM users ORDER BY id", load_user },
		{ "SELECT * FROM pre_auth_keys ORDER BY id", load_authkey },
		{ "SELECT * FROM nodes ORDER BY id", load_node },
		{ "SELECT * FROM machine_net_info", load_netinfo },
		/* Last: an id is not used again even if its row has gone. */
		{ "SELECT name, seq FROM sqlite_sequence", load_sequence },
	};

	for (size_t i = 0; i < ARRAY_SIZE(tables); i++) {
		sqlite3_stmt *q;
		int r = 0, rc = sqlite3_prepare_v2(st->db, tables[i].sql, -1, &q, NULL);

		if (rc != SQLITE_OK)
			return store_why(st, rc, "cannot read it", why);
		while (r == 0 && (rc = sqlite3_step(q)) == SQLITE_ROW) {
			r = tables[i].row(q, s);
			if (r < 0)
				snprintf(why, STORE_WHY_MAX, "%s: row %lld: %s", tables[i].sql,
					 (long long)sqlite3_column_int64(q, 0), strerror(-r));
		}
		if (r == 0 && rc != SQLITE_DONE)
			r = store_why(st, rc, "cannot read it", why);
		sqlite3_finalize(q);
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- the writing thread */

static int store_bind(sqlite3_stmt *q, const struct store_op *op)
{
	int rc = SQLITE_OK;

	for (unsigned int i = 0; i < op->n && rc == SQLITE_OK; i++) {
		const struct store_value *v = &op->v[i];
		const void *p = buf_data(&op->data) + v->at;

		if (v->type == SQLITE_INTEGER)
			rc = sqlite3_bind_int64(q, (int)i + 1, v->i);
		else if (v->type == SQLITE_TEXT)
			rc = sqlite3_bind_text(q, (int)i + 1, p, (int)v->len, SQLITE_STATIC);
		else if (v->type == SQLITE_BLOB)
			rc = sqlite3_bind_blob(q, (int)i + 1, p, (int)v->len, SQLITE_STATIC);
		else
			rc = sqlite3_bind_null(q, (int)i + 1);
	}
	return rc;
}

static int store_write(struct store *st, const struct store_op *op)
{
	sqlite3_stmt *q = st->stmt[op->stmt];
	int rc = store_bind(q, op);

	if (rc == SQLITE_OK)
		rc = sqlite3_step(q);
	sqlite3_reset(q);
	sqlite3_clear_bindings(q);
	if ((rc & 0xff) == SQLITE_CONSTRAINT) {
		/* A mistake of ours: memory is the authority, and one bad row must not block all others. */
		log_err("database: %s: %s", store_sql[op->stmt], sqlite3_errmsg(st->db));
		return SQLITE_OK;
	}
	return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

static int store_commit(struct store *st, const struct store_list *l)
{
	int rc = store_exec(st, "BEGIN IMMEDIATE");

	for (const struct store_op *op = l->first; op && rc == SQLITE_OK; op = op->next)
		rc = store_write(st, op);
	if (rc == SQLITE_OK)
		rc = store_exec(st, "COMMIT");
	if (rc != SQLITE_OK) {
		log_remote(LOG_LEVEL_ERR, "database: cannot write: %s; trying again", sqlite3_errmsg(st->db));
		if (!sqlite3_get_autocommit(st->db))
			store_exec(st, "ROLLBACK");
	}
	return rc;
}

static void store_signal(struct store *st)
{
	uint64_t one = 1;

	if (write(st->event_fd, &one, sizeof(one)) < 0)
		return; /* full: the loop is going to look anyway */
}

static void *store_thread(void *data)
{
	struct store *st = data;
	struct store_list mine = { 0 };
	unsigned int tries = 0;
	uint64_t mark = 0;

	pthread_mutex_lock(&st->mutex);
	for (;;) {
		struct timespec until;
		int rc;

		while (!st->queue.first && !mine.first && !st->stop)
			pthread_cond_wait(&st->cond, &st->mutex);
		if (st->queue.first) {
			store_list_append(&mine, st->queue.first, st->queue.end);
			st->queue = (struct store_list){ 0 };
		}
		mark = st->queued;
		if (!mine.first)
			break; /* stopped, all written */
		pthread_mutex_unlock(&st->mutex);
		rc = store_commit(st, &mine);
		if (rc == SQLITE_OK)
			store_list_free(&mine);
		pthread_mutex_lock(&st->mutex);
		st->failing = rc != SQLITE_OK;
		if (rc == SQLITE_OK)
			st->committed = mark;
		store_signal(st);
		if (rc == SQLITE_OK)
			continue;
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_sec += STORE_RETRY_SEC;
		pthread_cond_timedwait(&st->cond, &st->mutex, &until);
		if (st->stop && ++tries >= STORE_CLOSE_SEC / STORE_RETRY_SEC) {
			log_err("database: giving up, the last changes are lost");
			break;
		}
	}
	pthread_mutex_unlock(&st->mutex);
	store_list_free(&mine);
	return NULL;
}

/* ---- the loop's side */

static void store_on_event(void *data, int fd, uint32_t events)
{
	struct store *st = data;
	uint64_t n;

	(void)events;
	if (read(fd, &n, sizeof(n)) < 0)
		return;
	st->on_commit(st->data);
}

static void store_hand_over(struct store *st)
{
	if (!st->pending.first)
		return;
	pthread_mutex_lock(&st->mutex);
	store_list_append(&st->queue, st->pending.first, st->pending.end);
	st->queued = st->mark;
	pthread_cond_signal(&st->cond);
	pthread_mutex_unlock(&st->mutex);
	st->pending = (struct store_list){ 0 };
}

static void store_on_kick(void *data)
{
	store_hand_over(data);
}

int store_start(struct store *st, struct loop *l, loop_fn *on_commit, void *data)
{
	sigset_t all, old;
	int r;

	st->on_commit = on_commit;
	st->data = data;
	st->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (st->event_fd < 0)
		return -errno;
	r = loop_io_new(l, st->event_fd, EPOLLIN, store_on_event, st, &st->wake);
	if (r == 0)
		r = loop_defer_new(l, store_on_kick, st, &st->kick);
	if (r < 0)
		return r;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = -pthread_create(&st->thread, NULL, store_thread, st);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	st->started = r == 0;
	return r;
}

static void store_stop(struct store *st)
{
	store_hand_over(st);
	pthread_mutex_lock(&st->mutex);
	st->stop = true;
	pthread_cond_signal(&st->cond);
	pthread_mutex_unlock(&st->mutex);
	pthread_join(st->thread, NULL);
}

void store_free(struct store *st)
{
	if (!st)
		return;
	if (st->started)
		store_stop(st);
	loop_io_free(st->wake);
	loop_defer_drop(st->kick);
	store_list_free(&st->pending);
	store_list_free(&st->queue);
	for (int i = 0; i < STORE_STMT_COUNT; i++)
		sqlite3_finalize(st->stmt[i]);
	sqlite3_close(st->db);
	fd_close(st->event_fd);
	fd_close(st->lock_fd);
	pthread_cond_destroy(&st->cond);
	pthread_mutex_destroy(&st->mutex);
	free(st->reserve);
	free(st);
}

/* A change that memory holds has to reach the disk: so an op is made out of the reserve, and without one
 * nothing may be changed (store_failing). */
static struct store_op *op_new(struct store *st, enum store_stmt stmt)
{
	struct store_op *op;

	free(st->reserve);
	st->reserve = NULL;
	op = calloc(1, sizeof(*op));
	if (op)
		op->stmt = stmt;
	return op;
}

static void op_bytes(struct store_op *op, int type, const void *p, size_t n)
{
	if (!op)
		return;
	op->v[op->n++] = (struct store_value){ .type = p ? type : SQLITE_NULL, .at = op->data.len, .len = n };
	if (p)
		buf_put(&op->data, p, n);
}

static void op_text(struct store_op *op, const char *s)
{
	op_bytes(op, SQLITE_TEXT, s, s ? strlen(s) : 0);
}

static void op_int(struct store_op *op, int64_t i)
{
	if (op)
		op->v[op->n++] = (struct store_value){ .type = SQLITE_INTEGER, .i = i };
}

static void op_id(struct store_op *op, uint64_t id) /* 0: null */
{
	if (id)
		op_int(op, (int64_t)id);
	else
		op_text(op, NULL);
}

static void op_addr(struct store_op *op, const struct addr *a)
{
	char text[ADDR_TEXT_MAX];

	op_text(op, a->family ? addr_text(a, text) : NULL);
}

static void op_json(struct store_op *op, json_t *j)
{
	struct buf b = { 0 };

	if (!j || json_write(j, &b) < 0)
		buf_put_str(&b, "[]");
	op_bytes(op, SQLITE_TEXT, buf_data(&b), b.len);
	buf_done(&b);
	json_decref(j);
}

static bool store_reserve(struct store *st)
{
	if (!st->reserve)
		st->reserve = malloc(STORE_RESERVE);
	return st->reserve;
}

static void store_queue(struct store *st, struct store_op *op)
{
	store_reserve(st);
	if (st->lost && op) {
		store_op_free(op);
		return;
	}
	if (!op || op->data.bad) {
		/* Memory is ahead of the disk, and nobody may be told that it is not: what waits goes on waiting, and the
		 * owner starts again from the disk (store_lost). */
		log_err("database: out of memory, a change cannot be written");
		if (op)
			store_op_free(op);
		st->lost = true;
		store_list_free(&st->pending); /* half a change is worse than none */
		return;
	}
	if (!st->pending.first)
		st->mark++;
	store_list_append(&st->pending, op, &op->next);
	if (st->kick)
		loop_defer_arm(st->kick);
}

uint64_t store_mark(struct store *st)
{
	return st->mark;
}

bool store_lost(const struct store *st)
{
	return st->lost;
}

uint64_t store_committed(struct store *st)
{
	uint64_t n;

	if (st->lost)
		return 0;
	pthread_mutex_lock(&st->mutex);
	n = st->committed;
	pthread_mutex_unlock(&st->mutex);
	return n;
}

bool store_failing(struct store *st)
{
	bool f = !store_reserve(st);

	pthread_mutex_lock(&st->mutex);
	f |= st->failing || st->lost;
	pthread_mutex_unlock(&st->mutex);
	return f;
}

static void store_delete(struct store *st, enum store_stmt stmt, uint64_t id)
{
	struct store_op *op = op_new(st, stmt);

	op_int(op, (int64_t)id);
	store_queue(st, op);
}

void store_put_user(struct store *st, const struct registry_user *u, bool gone)
{
	struct store_op *op;

	if (gone) {
		store_delete(st, STORE_USER_DEL, u->id);
		return;
	}
	op = op_new(st, STORE_USER_PUT);
	op_int(op, (int64_t)u->id);
	op_text(op, u->name);
	op_text(op, u->display);
	op_text(op, u->email);
	op_text(op, u->picture);
	op_int(op, u->created_nsec);
	store_queue(st, op);
}

void store_put_authkey(struct store *st, const struct authkey *k, bool gone)
{
	struct store_op *op;

	if (gone) {
		store_delete(st, STORE_AUTHKEY_DEL, k->id);
		return;
	}
	op = op_new(st, STORE_AUTHKEY_PUT);
	op_int(op, (int64_t)k->id);
	op_id(op, k->user);
	op_text(op, k->name);
	op_bytes(op, SQLITE_BLOB, k->hash, sizeof(k->hash));
	op_int(op, k->reusable);
	op_int(op, k->ephemeral);
	op_int(op, k->used);
	op_int(op, k->created_nsec);
	op_int(op, k->expiry_nsec);
	op_json(op, strs_json(&k->tags));
	store_queue(st, op);
}

void store_put_node(struct store *st, const struct node *n, bool gone)
{
	struct store_op *op;
	json_t *eps;

	if (gone) {
		store_delete(st, STORE_NODE_DEL, n->id);
		return;
	}
	op = op_new(st, STORE_NODE_PUT);
	op_int(op, (int64_t)n->id);
	op_id(op, n->user);
	op_bytes(op, SQLITE_BLOB, n->machine_key.b, KEY_LEN);
	op_bytes(op, SQLITE_BLOB, n->node_key.b, KEY_LEN);
	op_bytes(op, SQLITE_BLOB, n->disco_key.b, KEY_LEN);
	op_addr(op, &n->v4);
	op_addr(op, &n->v6);
	op_text(op, n->hostname);
	op_text(op, n->given);
	op_int(op, n->given_fixed);
	op_json(op, strs_json(&n->tags));
	op_int(op, n->ephemeral);
	op_id(op, n->authkey);
	op_int(op, n->method);
	op_int(op, n->created_nsec);
	op_int(op, n->expiry_nsec);
	op_int(op, n->last_seen_nsec);
	op_int(op, n->cap);
	op_text(op, n->hostinfo);
	op_text(op, n->netinfo);
	op_int(op, n->home);
	eps = json_array();
	for (size_t i = 0; eps && i < n->n_endpoint; i++)
		json_array_append_new(eps, json_endpoint(&n->endpoint[i]));
	op_json(op, eps);
	op_int(op, n->online);
	store_queue(st, op);
}

void store_put_netinfo(struct store *st, const struct key *machine, const char *json, uint32_t home)
{
	struct store_op *op = op_new(st, json ? STORE_NETINFO_PUT : STORE_NETINFO_DEL);

	op_bytes(op, SQLITE_BLOB, machine->b, KEY_LEN);
	if (json) {
		op_text(op, json);
		op_int(op, home);
	}
	store_queue(st, op);
}
