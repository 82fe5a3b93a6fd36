#include "lib/h2.h"

#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <string.h>

#include "lib/h2_session.h"

#define SESSION_WINDOW (4 << 20)
#define PIECES_MAX     4096 /* and one for each PIECE_LEAST bytes that may wait */
#define PIECE_LEAST    32
#define FRAMES_MAX     2000 /* that wait to be sent: 250 streams have a few each */

struct h2_piece {
	struct h2_piece *next;
	struct blob *blob;
	size_t off;
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
	struct h2_piece *p = st->first;

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
void h2_body_drop(struct h2_stream *st)
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

struct h2_stream *h2_stream_new(struct h2 *h)
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

void h2_stream_unlink(struct h2_stream *st)
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
	h2_body_drop(st);
	h2_stream_unlink(st);
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

void h2_enter(struct h2 *h)
{
	h->busy++;
}

/* Gives the session's state; frees it where that was asked for meanwhile. */
int h2_leave(struct h2 *h)
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

	if (h->lost) /* a stream that should have been ended, or gone on, would hang for ever */
		return -ENOMEM;
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
	h2_enter(h);
	r = send_now(h);
	if (r < 0 && !h->dead) {
		session_fail(h, r);
		if (tell && h->on_error && !h->told && !h->dead) {
			h->told = true;
			h->on_error(h->error_data, r, strerror(-r));
		}
	}
	return h2_leave(h);
}

int h2_flush(struct h2 *h)
{
	return send_due(h, true);
}

/* DATA from the stream's queue. */
ssize_t h2_read_queue(nghttp2_session *ng, int32_t id, uint8_t *out, size_t max, uint32_t *flags,
			  nghttp2_data_source *src, void *data)
{
	struct h2_stream *st = nghttp2_session_get_stream_user_data(ng, id);
	size_t n = 0;

	(void)src;
	(void)data;
	if (!st)
		return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
	while (n < max && st->first) {
		struct h2_piece *p = st->first;
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

int h2_queue_blob(struct h2_stream *st, struct blob *b)
{
	struct h2_piece *p;

	if (!h2_usable(st) || st->ending)
		return -EPIPE;
	if (b->len == 0)
		return 0;
	if (st->n_pieces >= PIECES_MAX + st->queue_max / PIECE_LEAST || b->len > st->queue_max || st->pending > st->queue_max - b->len)
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

int h2_wake(struct h2_stream *st)
{
	struct h2 *h = st->h;

	if (st->deferred) {
		st->deferred = false;
		h->lost = h->lost || nghttp2_session_resume_data(h->ng, st->id) == NGHTTP2_ERR_NOMEM;
	}
	return h2_flush(h);
}

/* ---- callbacks of nghttp2 */

static int on_begin_headers(nghttp2_session *ng, const nghttp2_frame *f, void *data)
{
	struct h2 *h = data;
	struct h2_stream *st;

	if (!h->server || f->hd.type != NGHTTP2_HEADERS || f->headers.cat != NGHTTP2_HCAT_REQUEST)
		return 0;
	st = h->dead ? NULL : h2_stream_new(h);
	if (!st)
		return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
	st->id = f->hd.stream_id;
	st->headers.max = H2_HEADER_LIST_MAX + 2 * H2_REQUEST_HEADERS;
	st->body.max = H2_BODY_MAX + 1;
	nghttp2_session_set_stream_user_data(ng, st->id, st);
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
		if (f->headers.cat == NGHTTP2_HCAT_REQUEST && h2_server_header(st, name, nn, value, vn) < 0)
			return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
		return 0;
	}
	h2_client_header(st, name, nn, value, vn);
	return 0;
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
	h2_server_data(st, p, n);
	return 0;
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
			h2_client_headers(st);
		return 0;
	}
	if ((f->hd.type == NGHTTP2_HEADERS || f->hd.type == NGHTTP2_DATA) &&
	    (f->hd.flags & NGHTTP2_FLAG_END_STREAM))
		h2_server_complete(st);
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

int h2_session_new(bool server, const struct h2_io *io, void *io_data, struct h2 **ret)
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

int h2_session_open(struct h2 *h, const nghttp2_settings_entry *iv, size_t n)
{
	int r;

	if (nghttp2_submit_settings(h->ng, NGHTTP2_FLAG_NONE, iv, n) != 0 ||
	    nghttp2_session_set_local_window_size(h->ng, NGHTTP2_FLAG_NONE, 0, SESSION_WINDOW) != 0)
		return -ENOMEM;
	h2_enter(h);
	r = send_now(h);
	h2_leave(h);
	return r;
}

void h2_free(struct h2 *h)
{
	if (!h || h->dead)
		return;
	h->dead = true;
	h2_enter(h);
	streams_end(h, -EPIPE);
	h2_leave(h);
}

int h2_feed(struct h2 *h, const uint8_t *p, size_t n)
{
	ssize_t k;
	int r;

	if (h->dead || h->failed)
		return -EPIPE;
	assert(!h->busy);
	h2_enter(h);
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
	return h2_leave(h);
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
	h2_flush(h);
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
	return h2_flush(h);
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
	if (nghttp2_submit_rst_stream(st->h->ng, NGHTTP2_FLAG_NONE, st->id, NGHTTP2_CANCEL) == NGHTTP2_ERR_NOMEM)
		st->h->lost = true;
	h2_flush(st->h);
}
