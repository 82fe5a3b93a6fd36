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

#include "coordinator/store/store_row.h"
#include "lib/log.h"

#define STORE_APPLICATION_ID 0x4b53434f /* "KSCO" */
#define STORE_RETRY_SEC	     1
#define STORE_CLOSE_SEC	     10
#define STORE_RESERVE	     (512u << 10) /* several of the largest ops, NODE_HOSTINFO_MAX and what buffers grow by */

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

static void store_list_free(struct store_list *l)
{
	for (struct store_op *op = l->first, *next; op; op = next) {
		next = op->next;
		store_row_free(op);
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

int store_load(struct store *st, struct registry *s, char why[static STORE_WHY_MAX])
{
	for (size_t i = 0; i < ARRAY_SIZE(store_table); i++) {
		sqlite3_stmt *q;
		int r = 0, rc = sqlite3_prepare_v2(st->db, store_table[i].sql, -1, &q, NULL);

		if (rc != SQLITE_OK)
			return store_why(st, rc, "cannot read it", why);
		while (r == 0 && (rc = sqlite3_step(q)) == SQLITE_ROW) {
			r = store_table[i].row(q, s);
			if (r < 0)
				snprintf(why, STORE_WHY_MAX, "%s: row %lld: %s", store_table[i].sql,
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

static int store_write(struct store *st, const struct store_op *op)
{
	sqlite3_stmt *q = st->stmt[op->stmt];
	int rc = store_row_bind(q, op);

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
static void store_spend(struct store *st)
{
	free(st->reserve);
	st->reserve = NULL;
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
		store_row_free(op);
		return;
	}
	if (!op || op->data.bad) {
		/* Memory is ahead of the disk, and nobody may be told that it is not: what waits goes on waiting, and the
		 * owner starts again from the disk (store_lost). */
		log_err("database: out of memory, a change cannot be written");
		if (op)
			store_row_free(op);
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

void store_put_user(struct store *st, const struct registry_user *u, bool gone)
{
	store_spend(st);
	store_queue(st, store_row_user(u, gone));
}

void store_put_authkey(struct store *st, const struct authkey *k, bool gone)
{
	store_spend(st);
	store_queue(st, store_row_authkey(k, gone));
}

void store_put_node(struct store *st, const struct node *n, bool gone)
{
	store_spend(st);
	store_queue(st, store_row_node(n, gone));
}

void store_put_netinfo(struct store *st, const struct key *machine, const char *json, uint32_t home)
{
	store_spend(st);
	store_queue(st, store_row_netinfo(machine, json, home));
}
