#include "coordinator/store/store_row.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/json.h"

const char *const store_migration[STORE_VERSION] = {
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

const char *const store_sql[STORE_STMT_COUNT] = {
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

/* ---- in */

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

const struct store_table store_table[STORE_TABLES] = {
	{ "SELECT * FROM users ORDER BY id", load_user },
	{ "SELECT * FROM pre_auth_keys ORDER BY id", load_authkey },
	{ "SELECT * FROM nodes ORDER BY id", load_node },
	{ "SELECT * FROM machine_net_info", load_netinfo },
	/* Last: an id is not used again even if its row has gone. */
	{ "SELECT name, seq FROM sqlite_sequence", load_sequence },
};

/* ---- out */

static struct store_op *op_new(enum store_stmt stmt)
{
	struct store_op *op = calloc(1, sizeof(*op));

	if (op)
		op->stmt = stmt;
	return op;
}

void store_row_free(struct store_op *op)
{
	buf_done_secret(&op->data);
	free(op);
}

int store_row_bind(sqlite3_stmt *q, const struct store_op *op)
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

static struct store_op *op_delete(enum store_stmt stmt, uint64_t id)
{
	struct store_op *op = op_new(stmt);

	op_int(op, (int64_t)id);
	return op;
}

struct store_op *store_row_user(const struct registry_user *u, bool gone)
{
	struct store_op *op;

	if (gone)
		return op_delete(STORE_USER_DEL, u->id);
	op = op_new(STORE_USER_PUT);
	op_int(op, (int64_t)u->id);
	op_text(op, u->name);
	op_text(op, u->display);
	op_text(op, u->email);
	op_text(op, u->picture);
	op_int(op, u->created_nsec);
	return op;
}

struct store_op *store_row_authkey(const struct authkey *k, bool gone)
{
	struct store_op *op;

	if (gone)
		return op_delete(STORE_AUTHKEY_DEL, k->id);
	op = op_new(STORE_AUTHKEY_PUT);
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
	return op;
}

struct store_op *store_row_node(const struct node *n, bool gone)
{
	struct store_op *op;
	json_t *eps;

	if (gone)
		return op_delete(STORE_NODE_DEL, n->id);
	op = op_new(STORE_NODE_PUT);
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
	return op;
}

struct store_op *store_row_netinfo(const struct key *machine, const char *json, uint32_t home)
{
	struct store_op *op = op_new(json ? STORE_NETINFO_PUT : STORE_NETINFO_DEL);

	op_bytes(op, SQLITE_BLOB, machine->b, KEY_LEN);
	if (json) {
		op_text(op, json);
		op_int(op, home);
	}
	return op;
}
