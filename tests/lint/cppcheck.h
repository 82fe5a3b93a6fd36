/* For cppcheck alone: macros of libraries that look like unknown syntax to it. */
#define json_object_foreach(o, k, v) while (next(o, &(k), &(v)))
#define json_object_foreach_safe(o, n, k, v) while (next(o, &(n), &(k), &(v)))
#define json_array_foreach(a, i, v) while (next(a, &(i), &(v)))
#define LIST_HEAD(n, t) struct n { struct t *lh_first; }
#define LIST_ENTRY(t) struct { struct t *le_next, **le_prev; }
#define TAILQ_HEAD(n, t) struct n { struct t *tqh_first, **tqh_last; }
#define TAILQ_ENTRY(t) struct { struct t *tqe_next, **tqe_prev; }
#define STAILQ_HEAD(n, t) struct n { struct t *stqh_first, **stqh_last; }
#define STAILQ_ENTRY(t) struct { struct t *stqe_next; }
#define HASH_ITER(hh, head, el, tmp) for ((el) = (head); (el); (el) = (tmp))
