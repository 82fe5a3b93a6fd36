#pragma once
/*
 * store_row: the database's tables: their schema, and how users, keys and nodes become rows and back.
 *
 * Knows every column and no file, thread or transaction: store.c has those. A row on its way out is an op, a
 * statement and its values as a copy, which another thread may write later. For store.c only.
 */
#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "coordinator/state/registry.h"
#include "lib/buf.h"

#define STORE_VERSION	 2
#define STORE_VALUES_MAX 24
#define STORE_TABLES	 5

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

/* What is bound to one "?". */
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

/* One entry a version: what brings a database of the version before up to it. */
extern const char *const store_migration[STORE_VERSION];
extern const char *const store_sql[STORE_STMT_COUNT];

/* What fills an empty registry, in this order: row is called for each row of sql. */
struct store_table {
	const char *sql;
	int (*row)(sqlite3_stmt *q, struct registry *s);
};
extern const struct store_table store_table[STORE_TABLES];

/* NULL, or an op whose data is bad: no memory. */
struct store_op *store_row_user(const struct registry_user *u, bool gone);
struct store_op *store_row_authkey(const struct authkey *k, bool gone);
struct store_op *store_row_node(const struct node *n, bool gone);
struct store_op *store_row_netinfo(const struct key *machine, const char *json, uint32_t home); /* json NULL: gone */
/* The values are borrowed until the statement's bindings are cleared. An SQLITE_* result. */
int store_row_bind(sqlite3_stmt *q, const struct store_op *op);
void store_row_free(struct store_op *op);
