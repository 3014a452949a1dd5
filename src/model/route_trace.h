/* Records which experts every token chose, for build/tools/cache_replay. docs/formats.md has the layout. */
#pragma once

#include "format/checkpoint.h"

struct fm_model;
typedef struct fm_route_trace fm_route_trace;

/* Creates the file under another name; fm_route_trace_close() gives it `path`. `name` is the model's. */
fm_status fm_route_trace_open(fm_route_trace **out, const char *path, const struct fm_model *m,
                              fm_str name, fm_error *err);

/* A pass of n_tok tokens from position pos on begins; is_prompt: it belongs to several tokens that were
 * given together. Writes that fail are reported by fm_route_trace_close(). */
void fm_route_trace_pass(fm_route_trace *t, bool is_prompt, int32_t n_tok, int64_t pos);
/* ids [n_tok][experts per token], best first. */
void fm_route_trace_layer(fm_route_trace *t, int32_t layer, const int32_t *ids);
/* It was evaluated. One that was not is dropped when the next one begins. */
void fm_route_trace_pass_end(fm_route_trace *t);

/* Completes the file with the passes that ended; without any there is none, and what had its name keeps it. Frees t in
 * every case. NULL is fine. */
fm_status fm_route_trace_close(fm_route_trace *t, fm_error *err);
