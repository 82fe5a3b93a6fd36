#include "lib/h2.h"

#include <assert.h>
#include <errno.h>
#include <nghttp2/nghttp2.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "lib/buf.h"

#define STREAM_WINDOW	(1 << 20)
#define SESSION_WINDOW	(4 << 20)
#define METHOD_MAX	16
#define PATH_MAX_BYTES	2048
#define REQUEST_HEADERS 16 /* beyond :method and :path a handler sees so many */
#define PIECES_MAX	4096
#define FRAMES_MAX	2000 /* that wait to be sent: 250 streams have a few each */

struct piece {
	struct piece *next;
	struct blob *blob;
	size_t off;
};

struct h2_stream {
	unsigned int refs;
	struct h2 *h;		     /* NULL once closed */
	struct h2_stream *prev, *next; /* of the session's open streams */
	int32_t id;
	int reset; /* errno that we chose by h2_reset, 0 = none */
	/* what waits to be sent */
	struct piece *first, **last;
	size_t pending, n_pieces, queue_max;
	size_t aged; /* what waited when h2_age() looked last */
	bool is_aged;
	bool secret;  /* what is sent may hold a key */
	bool ending;  /* no more comes: END_STREAM after the queue */
	bool started; /* headers are out */
	bool deferred;
	/* client */
	const struct h2_client_ops *ops;
	void *data;
	/* server */
	void (*on_closed)(void *data, struct h2_stream *st, int error);
	void *closed_data;
	char method[METHOD_MAX], *path;
	struct buf headers; /* name NUL value NUL … */
	unsigned int n_headers;
	size_t header_bytes;
	struct buf body;
	int status;
	bool refused, complete;
};

struct h2 {
	nghttp2_session *ng;
	const struct h2_io *io;
	void *io_data;
	bool server;
	const struct h2_server_ops *ops;
	void *data;
	struct h2_stream *open;
	size_t n_open;
	size_t bodies, bodies_max; /* of requests that are not complete */
	void (*on_pong)(void *data);
	void *pong_data;
	void (*on_error)(void *data, int r, const char *why);
	void *error_data;
	unsigned int busy; /* depth of calls that must find the session after a callback */
	int failed;
	bool told, dead;
};

/* ---- streams */

struct h2_stream *h2_stream_ref(struct h2_stream *st)
{
	st->refs++;
	return st;
}

/* Takes the first piece away. */
static void piece_drop(struct h2_stream *st)
{
	struct piece *p = st->first;

	st->first = p->next;
	if (!st->first)
		st->last = &st->first;
	st->n_pieces--;
	if (st->secret)
		sodium_memzero(p->blob->data, p->blob->len);
	blob_unref(p->blob);
	free(p);
}

static void queue_drop(struct h2_stream *st)
{
	while (st->first)
		piece_drop(st);
	st->pending = 0;
}

/* The request's body, wiped: a login has its key in it. */
static void body_drop(struct h2_stream *st)
{
	if (st->h)
		st->h->bodies -= st->body.len;
	buf_done_secret(&st->body);
}

void h2_stream_unref(struct h2_stream *st)
{
	if (!st || --st->refs)
		return;
	queue_drop(st);
	buf_done(&st->headers);
	buf_done_secret(&st->body);
	free(st->path);
	free(st);
}

static struct h2_stream *stream_new_in(struct h2 *h)
{
	struct h2_stream *st = calloc(1, sizeof(*st));

	if (!st)
		return NULL;
	st->refs = 1; /* the session's */
	st->h = h;
	st->last = &st->first;
	st->queue_max = H2_STREAM_QUEUE_MAX;
	st->next = h->open;
	if (st->next)
		st->next->prev = st;
	h->open = st;
	h->n_open++;
	return st;
}

static void stream_unlink(struct h2_stream *st)
{
	struct h2 *h = st->h;

	if (st->prev)
		st->prev->next = st->next;
	else
		h->open = st->next;
	if (st->next)
		st->next->prev = st->prev;
	h->n_open--;
	st->h = NULL;
}

/* The stream's last callback. */
static void stream_over(struct h2_stream *st, int error)
{
	if (st->reset)
		error = st->reset;
	if (st->id > 0 && st->h->ng)
		nghttp2_session_set_stream_user_data(st->h->ng, st->id, NULL);
	body_drop(st);
	stream_unlink(st);
	queue_drop(st);
	if (st->ops && st->ops->on_end)
		st->ops->on_end(st->data, st, error);
	else if (st->on_closed)
		st->on_closed(st->closed_data, st, error);
	h2_stream_unref(st);
}

/* ---- sending */

static void session_free(struct h2 *h)
{
	nghttp2_session_del(h->ng);
	free(h);
}

static void enter(struct h2 *h)
{
	h->busy++;
}

/* Gives the session's state; frees it where that was asked for meanwhile. */
static int leave(struct h2 *h)
{
	int r = h->failed;

	if (--h->busy == 0 && h->dead) {
		session_free(h);
		return -EPIPE;
	}
	return h->dead ? -EPIPE : r;
}

static void streams_end(struct h2 *h, int error)
{
	while (h->open)
		stream_over(h->open, error);
}

static void session_fail(struct h2 *h, int r)
{
	if (!h->failed)
		h->failed = r;
	streams_end(h, -EPIPE);
}

/* Frames are gathered, so that a response is one record and one system call. */
#define BATCH_MAX 32768

static int batch_write(struct h2 *h, const uint8_t *p, size_t n)
{
	return n && h->io->write(h->io_data, p, n) < 0 ? -EPIPE : 0;
}

/* A login's key goes out once and must not lie about afterwards: nghttp2 keeps a frame's memory until the next one,
 * perhaps for days. */
static void wipe_sent(const uint8_t *p, size_t n)
{
	if (n > 9 && p[3] == NGHTTP2_DATA) /* what begins otherwise may be a constant: the preface */
		sodium_memzero((void *)(uintptr_t)p, n);
}

static bool transport_full(const struct h2 *h, size_t n)
{
	return h->io->pending && h->io->pending(h->io_data) + n > H2_TRANSPORT_HIGH;
}

static int send_now(struct h2 *h)
{
	static __thread uint8_t batch[BATCH_MAX];
	size_t n = 0, most = 0;
	int r;

	while (!h->dead && !h->failed && !transport_full(h, n)) { /* full: h2_drained() goes on */
		const uint8_t *p;
		ssize_t k = nghttp2_session_mem_send(h->ng, &p);

		if (k < 0)
			return k == NGHTTP2_ERR_NOMEM ? -ENOMEM : -EPROTO;
		if (h->dead)
			return 0;
		if (k == 0)
			break;
		if ((size_t)k > BATCH_MAX - n) {
			if (batch_write(h, batch, n) < 0)
				return -EPIPE;
			n = 0;
		}
		if ((size_t)k > BATCH_MAX) {
			if (batch_write(h, p, (size_t)k) < 0)
				return -EPIPE;
			continue;
		}
		memcpy(batch + n, p, (size_t)k);
		n += (size_t)k;
		if (!h->server) {
			wipe_sent(p, (size_t)k);
			most = MAX(most, n);
		}
	}
	r = h->dead || h->failed ? 0 : batch_write(h, batch, n);
	sodium_memzero(batch, most);
	return r;
}

/* Sends what is due, unless a callback of nghttp2 is running: then its caller does. */
static int send_due(struct h2 *h, bool tell)
{
	int r;

	if (h->dead || h->failed)
		return -EPIPE;
	if (h->busy)
		return 0;
	enter(h);
	r = send_now(h);
	if (r < 0 && !h->dead) {
		session_fail(h, r);
		if (tell && h->on_error && !h->told && !h->dead) {
			h->told = true;
			h->on_error(h->error_data, r, strerror(-r));
		}
	}
	return leave(h);
}

static int flush(struct h2 *h)
{
	return send_due(h, true);
}

/* DATA from the stream's queue. */
static ssize_t read_queue(nghttp2_session *ng, int32_t id, uint8_t *out, size_t max, uint32_t *flags,
			  nghttp2_data_source *src, void *data)
{
	struct h2_stream *st = nghttp2_session_get_stream_user_data(ng, id);
	size_t n = 0;

	(void)src;
	(void)data;
	if (!st)
		return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
	while (n < max && st->first) {
		struct piece *p = st->first;
		size_t k = MIN(max - n, p->blob->len - p->off);

		memcpy(out + n, p->blob->data + p->off, k);
		n += k;
		p->off += k;
		if (p->off < p->blob->len)
			break;
		piece_drop(st);
	}
	st->pending -= n;
	if (!st->first && st->ending) {
		*flags |= NGHTTP2_DATA_FLAG_EOF;
	} else if (n == 0) {
		st->deferred = true;
		return NGHTTP2_ERR_DEFERRED;
	}
	return (ssize_t)n;
}

static bool usable(const struct h2_stream *st)
{
	return st->h && !st->reset && !st->h->failed && !st->h->dead;
}

static int queue_blob(struct h2_stream *st, struct blob *b)
{
	struct piece *p;

	if (!usable(st) || st->ending)
		return -EPIPE;
	if (b->len == 0)
		return 0;
	if (st->n_pieces >= PIECES_MAX || b->len > st->queue_max || st->pending > st->queue_max - b->len)
		return -ENOBUFS;
	p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	p->blob = blob_ref(b);
	*st->last = p;
	st->last = &p->next;
	st->pending += b->len;
	st->n_pieces++;
	return 0;
}

static int wake(struct h2_stream *st)
{
	struct h2 *h = st->h;

	if (st->deferred) {
		st->deferred = false;
		nghttp2_session_resume_data(h->ng, st->id);
	}
	return flush(h);
}

/* ---- callbacks of nghttp2 */

static int on_begin_headers(nghttp2_session *ng, const nghttp2_frame *f, void *data)
{
	struct h2 *h = data;
	struct h2_stream *st;

	if (!h->server || f->hd.type != NGHTTP2_HEADERS || f->headers.cat != NGHTTP2_HCAT_REQUEST)
		return 0;
	st = h->dead ? NULL : stream_new_in(h);
	if (!st)
		return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
	st->id = f->hd.stream_id;
	st->headers.max = H2_HEADER_LIST_MAX + 2 * REQUEST_HEADERS;
	st->body.max = H2_BODY_MAX + 1;
	nghttp2_session_set_stream_user_data(ng, st->id, st);
	return 0;
}

static bool name_is(const uint8_t *p, size_t n, const char *s)
{
	return strlen(s) == n && memcmp(p, s, n) == 0;
}

static int server_header(struct h2_stream *st, const uint8_t *name, size_t nn, const uint8_t *value, size_t vn)
{
	st->header_bytes += nn + vn + 32; /* as SETTINGS_MAX_HEADER_LIST_SIZE counts */
	if (st->header_bytes > H2_HEADER_LIST_MAX)
		return -ENOBUFS;
	if (name_is(name, nn, ":method")) {
		if (vn >= sizeof(st->method))
			return -EBADMSG;
		memcpy(st->method, value, vn);
	} else if (name_is(name, nn, ":path")) {
		if (vn > PATH_MAX_BYTES || st->path)
			return -EBADMSG;
		st->path = strndup((const char *)value, vn);
		return st->path ? 0 : -ENOMEM;
	} else if (name[0] != ':' && st->n_headers < REQUEST_HEADERS) {
		st->n_headers++;
		buf_put(&st->headers, name, nn);
		buf_put_u8(&st->headers, 0);
		buf_put(&st->headers, value, vn);
		buf_put_u8(&st->headers, 0);
	}
	return 0;
}

static int on_header(nghttp2_session *ng, const nghttp2_frame *f, const uint8_t *name, size_t nn,
		     const uint8_t *value, size_t vn, uint8_t flags, void *data)
{
	struct h2 *h = data;
	struct h2_stream *st = nghttp2_session_get_stream_user_data(ng, f->hd.stream_id);

	(void)flags;
	if (!st)
		return 0;
	if (h->server) {
		if (f->headers.cat == NGHTTP2_HCAT_REQUEST && server_header(st, name, nn, value, vn) < 0)
			return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
		return 0;
	}
	/* nghttp2 has checked that it is three digits. */
	if (name_is(name, nn, ":status") && vn == 3)
		st->status = (value[0] - '0') * 100 + (value[1] - '0') * 10 + (value[2] - '0');
	/* The one header of answers that a caller acts on; the rest is not kept. */
	if (name_is(name, nn, "retry-after") && vn < 64 && !st->headers.len) {
		buf_put(&st->headers, name, nn);
		buf_put_u8(&st->headers, 0);
		buf_put(&st->headers, value, vn);
		buf_put_u8(&st->headers, 0);
	}
	return 0;
}

static void server_refuse(struct h2_stream *st)
{
	st->refused = true;
	body_drop(st);
	h2_respond(st, 413, "text/plain", "request body too large\n", 23);
}

static void request_complete(struct h2_stream *st)
{
	static const char front[] = "/";

	if (st->complete || st->refused)
		return;
	st->complete = true;
	h2_stream_ref(st);
	st->h->ops->on_request(st->h->data, st, st->method, st->path ? st->path : front, buf_data(&st->body),
			       st->body.len);
	body_drop(st); /* a long poll keeps no copy of its request */
	h2_stream_unref(st);
}

static int on_data_chunk(nghttp2_session *ng, uint8_t flags, int32_t id, const uint8_t *p, size_t n, void *data)
{
	struct h2 *h = data;
	struct h2_stream *st = nghttp2_session_get_stream_user_data(ng, id);

	(void)flags;
	if (!st || h->dead)
		return 0;
	if (!h->server) {
		if (!st->reset && st->ops->on_data)
			st->ops->on_data(st->data, st, p, n);
		return 0;
	}
	if (st->refused)
		return 0;
	if (h->bodies + n > h->bodies_max || buf_put(&st->body, p, n) < 0) {
		server_refuse(st);
		return 0;
	}
	h->bodies += n;
	if (st->body.len > H2_BODY_MAX)
		server_refuse(st);
	return 0;
}

static void client_headers(struct h2_stream *st)
{
	int status = st->status;

	if (status / 100 == 1) { /* interim */
		st->status = 0;
		return;
	}
	if (!st->complete) {
		st->complete = true;
		if (st->ops->on_headers && !st->reset)
			st->ops->on_headers(st->data, st, status);
	}
}

static int on_frame(nghttp2_session *ng, const nghttp2_frame *f, void *data)
{
	struct h2 *h = data;
	struct h2_stream *st;

	if (h->dead)
		return 0;
	if (f->hd.type == NGHTTP2_PING && (f->hd.flags & NGHTTP2_FLAG_ACK) && h->on_pong) {
		void (*fn)(void *) = TAKE(h->on_pong);

		fn(h->pong_data);
		return 0;
	}
	st = f->hd.stream_id ? nghttp2_session_get_stream_user_data(ng, f->hd.stream_id) : NULL;
	if (!st)
		return 0;
	if (!h->server) {
		if (f->hd.type == NGHTTP2_HEADERS)
			client_headers(st);
		return 0;
	}
	if ((f->hd.type == NGHTTP2_HEADERS || f->hd.type == NGHTTP2_DATA) &&
	    (f->hd.flags & NGHTTP2_FLAG_END_STREAM))
		request_complete(st);
	return 0;
}

static int on_stream_close(nghttp2_session *ng, int32_t id, uint32_t code, void *data)
{
	struct h2_stream *st = nghttp2_session_get_stream_user_data(ng, id);
	int error = code == NGHTTP2_NO_ERROR ? 0 : -ECONNRESET;

	(void)data;
	if (!st)
		return 0;
	/* A server may end its answer before it has read the request, and says NO_ERROR then; without an answer it is none. */
	if (!error && !st->h->server && !st->complete)
		error = -ECONNRESET;
	stream_over(st, error);
	return 0;
}

/* A request that cannot be sent any more (GOAWAY, stream numbers used up) has no stream that could be closed. */
static int on_not_sent(nghttp2_session *ng, const nghttp2_frame *f, int error, void *data)
{
	struct h2 *h = data;

	(void)ng;
	(void)error;
	if (h->server || f->hd.type != NGHTTP2_HEADERS || f->headers.cat != NGHTTP2_HCAT_REQUEST)
		return 0;
	for (struct h2_stream *st = h->open; st; st = st->next)
		if (st->id == f->hd.stream_id) {
			stream_over(st, -EPIPE);
			break;
		}
	return 0;
}

/* ---- sessions */

static int session_new(bool server, const struct h2_io *io, void *io_data, struct h2 **ret)
{
	nghttp2_session_callbacks *cb = NULL;
	nghttp2_option *opt = NULL;
	struct h2 *h = calloc(1, sizeof(*h));
	int r = -ENOMEM;

	if (!h || nghttp2_session_callbacks_new(&cb) != 0 || nghttp2_option_new(&opt) != 0)
		goto out;
	h->server = server;
	h->bodies_max = H2_BODIES_MAX;
	h->io = io;
	h->io_data = io_data;
	nghttp2_session_callbacks_set_on_begin_headers_callback(cb, on_begin_headers);
	nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data_chunk);
	nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame);
	nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_close);
	nghttp2_session_callbacks_set_on_frame_not_send_callback(cb, on_not_sent);
	/* Memory for streams that are over is kept for priorities that nobody uses. */
	nghttp2_option_set_no_closed_streams(opt, 1);
	nghttp2_option_set_max_outbound_ack(opt, 100); /* a flood of PING or SETTINGS ends the session */
	nghttp2_option_set_max_settings(opt, 32);
	nghttp2_option_set_max_deflate_dynamic_table_size(opt, 0);
	r = server ? nghttp2_session_server_new2(&h->ng, cb, h, opt) : nghttp2_session_client_new2(&h->ng, cb, h, opt);
	if (r != 0) {
		r = -ENOMEM;
		goto out;
	}
	*ret = TAKE(h);
out:
	nghttp2_session_callbacks_del(cb);
	nghttp2_option_del(opt);
	free(h);
	return r;
}

static int session_open(struct h2 *h, const nghttp2_settings_entry *iv, size_t n)
{
	int r;

	if (nghttp2_submit_settings(h->ng, NGHTTP2_FLAG_NONE, iv, n) != 0 ||
	    nghttp2_session_set_local_window_size(h->ng, NGHTTP2_FLAG_NONE, 0, SESSION_WINDOW) != 0)
		return -ENOMEM;
	enter(h);
	r = send_now(h);
	leave(h);
	return r;
}

int h2_client_new(const struct h2_io *io, void *io_data, struct h2 **ret)
{
	static const nghttp2_settings_entry iv[] = {
		{ NGHTTP2_SETTINGS_ENABLE_PUSH, 0 },
		{ NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, STREAM_WINDOW },
		{ NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, H2_HEADER_LIST_MAX },
	};
	CLEANUP(h2_free) struct h2 *h = NULL;
	int r = session_new(false, io, io_data, &h);

	if (r == 0)
		r = session_open(h, iv, ARRAY_SIZE(iv));
	if (r < 0)
		return r;
	*ret = TAKE(h);
	return 0;
}

int h2_server_new(const struct h2_io *io, void *io_data, const struct h2_server_ops *ops, void *data,
		  struct h2 **ret)
{
	static const nghttp2_settings_entry iv[] = {
		{ NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, H2_STREAMS_MAX },
		{ NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, STREAM_WINDOW },
		{ NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, H2_HEADER_LIST_MAX },
	};
	CLEANUP(h2_free) struct h2 *h = NULL;
	int r = session_new(true, io, io_data, &h);

	if (r < 0)
		return r;
	h->ops = ops;
	h->data = data;
	r = session_open(h, iv, ARRAY_SIZE(iv));
	if (r < 0)
		return r;
	*ret = TAKE(h);
	return 0;
}

void h2_free(struct h2 *h)
{
	if (!h || h->dead)
		return;
	h->dead = true;
	enter(h);
	streams_end(h, -EPIPE);
	leave(h);
}

int h2_feed(struct h2 *h, const uint8_t *p, size_t n)
{
	ssize_t k;
	int r;

	if (h->dead || h->failed)
		return -EPIPE;
	assert(!h->busy);
	enter(h);
	k = nghttp2_session_mem_recv(h->ng, p, n);
	if (k < 0 && !h->dead)
		session_fail(h, k == NGHTTP2_ERR_NOMEM ? -ENOMEM : k == NGHTTP2_ERR_FLOODED ? -ENOBUFS : -EBADMSG);
	r = h->dead || h->failed ? 0 : send_now(h);
	if (r < 0 && !h->dead)
		session_fail(h, r);
	/* Who never reads must not make us queue refusals: nghttp2 bounds answers to PING and SETTINGS only. */
	if (!h->dead && !h->failed && nghttp2_session_get_outbound_queue_size(h->ng) > FRAMES_MAX)
		session_fail(h, -ENOBUFS);
	/* After a GOAWAY for a protocol error there is nothing left to say. */
	if (!h->dead && !h->failed && !nghttp2_session_want_read(h->ng) && !nghttp2_session_want_write(h->ng))
		session_fail(h, -ESHUTDOWN);
	return leave(h);
}

int h2_drained(struct h2 *h)
{
	return send_due(h, false); /* by its result */
}

void h2_goaway(struct h2 *h)
{
	if (h->dead || h->failed)
		return;
	nghttp2_submit_goaway(h->ng, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(h->ng),
			      NGHTTP2_NO_ERROR, NULL, 0);
	flush(h);
}

int h2_ping(struct h2 *h, void (*on_pong)(void *data), void *data)
{
	if (h->dead || h->failed)
		return -EPIPE;
	if (h->on_pong)
		return -EALREADY;
	if (nghttp2_submit_ping(h->ng, NGHTTP2_FLAG_NONE, NULL) != 0)
		return -ENOMEM;
	h->on_pong = on_pong;
	h->pong_data = data;
	return flush(h);
}

bool h2_finished(const struct h2 *h)
{
	return h->failed || (!nghttp2_session_want_read(h->ng) && !nghttp2_session_want_write(h->ng));
}

size_t h2_open_streams(const struct h2 *h)
{
	return h->n_open;
}

void h2_set_error(struct h2 *h, void (*on_error)(void *data, int r, const char *why), void *data)
{
	h->on_error = on_error;
	h->error_data = data;
}

void h2_reset(struct h2_stream *st)
{
	if (!st->h || st->reset)
		return;
	st->reset = -ECANCELED;
	queue_drop(st);
	nghttp2_submit_rst_stream(st->h->ng, NGHTTP2_FLAG_NONE, st->id, NGHTTP2_CANCEL);
	flush(st->h);
}

/* ---- client */

static nghttp2_nv nv(const char *name, const char *value)
{
	return (nghttp2_nv){ .name = (uint8_t *)(uintptr_t)name, .value = (uint8_t *)(uintptr_t)value,
			     .namelen = strlen(name), .valuelen = strlen(value), .flags = NGHTTP2_NV_FLAG_NONE };
}

#define EXTRA_HEADERS_MAX 16

static int request_submit(struct h2_stream *st, const struct h2_request *rq)
{
	nghttp2_data_provider body = { .read_callback = read_queue };
	nghttp2_nv all[EXTRA_HEADERS_MAX + 5];
	char length[24];
	size_t n = 0;
	int32_t id;

	all[n++] = nv(":method", rq->method ? rq->method : rq->body_len ? "POST" : "GET");
	all[n++] = nv(":scheme", rq->scheme ? rq->scheme : "https");
	all[n++] = nv(":authority", rq->authority ? rq->authority : "unused");
	all[n++] = nv(":path", rq->path);
	if (rq->body_len) {
		snprintf(length, sizeof(length), "%zu", rq->body_len);
		all[n++] = nv("content-length", length);
	}
	if (rq->n_headers > EXTRA_HEADERS_MAX)
		return -EINVAL;
	for (size_t i = 0; i < rq->n_headers; i++)
		all[n++] = nv(rq->headers[i].name, rq->headers[i].value);
	id = nghttp2_submit_request(st->h->ng, NULL, all, n, rq->body_len ? &body : NULL, st);
	if (id < 0)
		return id == NGHTTP2_ERR_NOMEM ? -ENOMEM : -EPIPE;
	st->id = id;
	return 0;
}

int h2_request(struct h2 *h, const struct h2_request *rq, const struct h2_client_ops *ops, void *data,
	       struct h2_stream **ret)
{
	CLEANUP(blob_unref) struct blob *body = NULL;
	struct h2_stream *st;
	int r;

	if (h->dead || h->failed || !nghttp2_session_check_request_allowed(h->ng))
		return -EPIPE;
	st = stream_new_in(h);
	if (!st)
		return -ENOMEM;
	st->queue_max = SIZE_MAX;
	st->secret = true;
	if (rq->body_len) {
		body = blob_new(rq->body, rq->body_len);
		r = body ? queue_blob(st, body) : -ENOMEM;
	} else {
		r = 0;
	}
	st->ending = true;
	if (r == 0)
		r = request_submit(st, rq);
	if (r < 0) {
		stream_unlink(st);
		h2_stream_unref(st);
		return r;
	}
	st->ops = ops;
	st->data = data;
	*ret = st;
	/* A failing transport ends the stream by its on_end, and the session by on_error. */
	h2_stream_ref(st);
	flush(h);
	h2_stream_unref(st);
	return 0;
}

/* ---- server */

const char *h2_header(const struct h2_stream *st, const char *name)
{
	const char *p = (const char *)buf_data(&st->headers);
	const char *end = p + st->headers.len;

	while (p < end) {
		const char *value = p + strlen(p) + 1;

		if (strcmp(p, name) == 0)
			return value;
		p = value + strlen(value) + 1;
	}
	return NULL;
}

void h2_set_bodies_max(struct h2 *h, size_t max)
{
	h->bodies_max = max;
}

static bool on_its_way(const struct h2_stream *st)
{
	return (!st->complete && !st->refused) || st->ending;
}

/* The same as at the last look: a body that is still not whole, or an answer of which nothing was taken. */
static bool stuck(struct h2_stream *st)
{
	bool body = !st->complete && !st->refused;
	bool again = st->is_aged && (body || (st->ending && st->aged == st->pending));

	st->is_aged = on_its_way(st);
	st->aged = st->pending;
	return again;
}

bool h2_under_way(const struct h2 *h)
{
	for (const struct h2_stream *st = h->open; st; st = st->next)
		if (!st->reset && on_its_way(st))
			return true;
	return false;
}

void h2_age(struct h2 *h)
{
	struct h2_stream *st, *next;

	if (h->dead || h->failed || h->busy)
		return;
	enter(h); /* streams that end stay in the list until we have seen it all */
	for (st = h->open; st; st = next) {
		next = st->next;
		if (!st->reset && stuck(st))
			h2_reset(st);
	}
	leave(h);
	flush(h);
}

void h2_on_closed(struct h2_stream *st, void (*fn)(void *data, struct h2_stream *st, int error), void *data)
{
	st->on_closed = fn;
	st->closed_data = data;
}

int h2_respond_start(struct h2_stream *st, int status, const char *type)
{
	nghttp2_data_provider body = { .read_callback = read_queue };
	char code[8];
	nghttp2_nv all[2];
	size_t n = 0;

	if (!usable(st))
		return -EPIPE;
	if (st->started)
		return -EALREADY;
	snprintf(code, sizeof(code), "%03d", status);
	all[n++] = nv(":status", code);
	if (type)
		all[n++] = nv("content-type", type);
	if (nghttp2_submit_response(st->h->ng, st->id, all, n, &body) != 0)
		return -ENOMEM;
	st->started = true;
	return flush(st->h);
}

int h2_respond(struct h2_stream *st, int status, const char *type, const void *p, size_t len)
{
	CLEANUP(blob_unref) struct blob *b = NULL;
	nghttp2_data_provider body = { .read_callback = read_queue };
	char code[8], length[24];
	nghttp2_nv all[3];
	size_t n = 0;
	int r = 0;

	if (!usable(st))
		return -EPIPE;
	if (st->started)
		return -EALREADY;
	snprintf(code, sizeof(code), "%03d", status);
	snprintf(length, sizeof(length), "%zu", len);
	all[n++] = nv(":status", code);
	if (type)
		all[n++] = nv("content-type", type);
	if (status != 204 && status != 304)
		all[n++] = nv("content-length", length);
	if (!strcmp(st->method, "HEAD"))
		len = 0;
	st->queue_max = SIZE_MAX;
	if (len) {
		b = blob_new(p, len);
		r = b ? queue_blob(st, b) : -ENOMEM;
	}
	if (r < 0)
		return r;
	st->ending = st->started = true;
	if (nghttp2_submit_response(st->h->ng, st->id, all, n, len ? &body : NULL) != 0)
		return -ENOMEM;
	return flush(st->h);
}

int h2_send_blob(struct h2_stream *st, struct blob *b)
{
	int r;

	if (usable(st) && !st->started)
		return -EPROTO;
	r = queue_blob(st, b);
	return r < 0 ? r : wake(st);
}

int h2_send(struct h2_stream *st, const void *p, size_t n)
{
	CLEANUP(blob_unref) struct blob *b = blob_new(p, n);

	return b ? h2_send_blob(st, b) : -ENOMEM;
}

void h2_set_queue_max(struct h2_stream *st, size_t max)
{
	st->queue_max = max;
}

size_t h2_pending(const struct h2_stream *st)
{
	return st->pending;
}

int h2_end(struct h2_stream *st)
{
	if (!usable(st))
		return -EPIPE;
	st->ending = true;
	return st->started ? wake(st) : -EPROTO;
}
