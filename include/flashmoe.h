/* flashmoe: runs Mixture-of-Experts language models that are larger than memory.
 *
 * Two objects carry everything. An *engine* is one opened checkpoint with its memory plan:
 * trunk, expert slots, kernels, tokenizer. A *session* is one conversation on an engine: the
 * tokens so far, its attention caches and recurrent state. Evaluate tokens in a session, read the
 * logits of the last one, pick the next id with a sampler, turn ids into text with the engine's
 * tokenizer.
 *
 * Functions that can fail return fm_status (0 is success) and describe the failure in an
 * fm_error, which may be NULL. Nothing here prints, exits or aborts on bad input. One engine may
 * be used by one thread at a time unless a function says otherwise. A child process made by fork() has no
 * use of its parent's engines: their memory is not there, and touching them, closing included, ends it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FM_VERSION "0.1.0"

/* ---- errors ------------------------------------------------------------------------------ */

typedef enum {
    FM_OK = 0,
    FM_E_ARG,         /* the caller broke the contract                     */
    FM_E_NOMEM,       /* an allocation failed, or the memory budget said no */
    FM_E_IO,          /* the OS or the device failed; os_errno is kept      */
    FM_E_FORMAT,      /* the bytes are not what the format promises         */
    FM_E_UNSUPPORTED, /* valid, but this build or engine cannot do it       */
    FM_E_LIMIT,       /* context full, request too large                    */
    FM_E_CANCELLED,   /* the caller asked to stop                           */
} fm_status;

typedef struct {
    fm_status code;
    int os_errno;   /* 0 when no system call was involved      */
    char msg[1000]; /* one message; may hold newlines (a plan) */
} fm_error;

/* ---- logging ----------------------------------------------------------------------------- */

typedef enum { FM_LOG_ERROR, FM_LOG_WARN, FM_LOG_INFO, FM_LOG_DEBUG } fm_log_level;

/* Receives one line without a newline. Called on the thread that called into the library. */
typedef void (*fm_log_fn)(void *user, fm_log_level level, const char *line);

/* ---- engine ------------------------------------------------------------------------------ */

typedef struct fm_engine fm_engine;
typedef struct fm_session fm_session;

typedef enum { FM_KV_F16, FM_KV_F32 } fm_kv_type;

/* How activations are rounded where they meet quantized weights: to 13 or 15 bits, by the format (kernels "reference":
 * not at all); or to 8, which makes prompts faster on some processors and changes the output. */
typedef enum { FM_ACTIVATIONS_FULL, FM_ACTIVATIONS_INT8 } fm_activations;

/* Reading experts that the next layer will probably want; never changes the output. AUTO measures
 * from time to time whether it pays, and how early to begin, and does what was faster; ON measures only how early. */
typedef enum { FM_PREFETCH_AUTO, FM_PREFETCH_ON, FM_PREFETCH_OFF } fm_prefetch;

/* Drafts by the model's own draft layer (multi-token prediction), where the file has one: generation evaluates the next token
 * and a guess of the one after it together, and keeps what the guess gave when it turns out right. Never changes the output.
 * AUTO drafts where the trunk and at least half of the experts fit in memory, and measures from time to time whether it
 * pays; ON always, and opening fails where that cannot be. A draft layer that cannot be read later ends the drafts. */
typedef enum { FM_DRAFT_AUTO, FM_DRAFT_ON, FM_DRAFT_OFF } fm_draft_mode;

/* What a caller wants of the plan beyond its options. */
typedef struct {
    /* With n_ctx 0 in the options: the default holds n_ctx_least tokens in any case and n_ctx where memory allows, or as
     * many as the model was trained for. */
    int64_t n_ctx_least, n_ctx;
    uint64_t caller_bytes; /* what the caller itself holds while it uses the engine: a line of the plan */
} fm_plan_wish;

typedef struct {
    size_t struct_size;       /* set by fm_engine_options_init()                           */
    const char *model_path;   /* GGUF file or first shard, or Hugging Face directory       */
    uint64_t memory_budget;   /* bytes for everything this process holds; 0: what is free  */
    int32_t n_threads;        /* 0: the cores this process may use                         */
    int32_t n_ctx;            /* tokens a session can hold; 0: a default that fits         */
    int32_t n_expert_used;    /* 0: as trained; other values change the output             */
    int32_t n_batch;          /* tokens evaluated together; 0: as memory allows, below 512 only where it is short */
    fm_kv_type kv_type;       /* attention cache                                           */
    fm_activations activations; /* 0: FM_ACTIVATIONS_FULL                                  */
    const char *io_engine;    /* "uring", "pread", "mmap"; NULL: the best available        */
    const char *kernels;      /* "reference", "generic", "avx2", "avxvnni", "avx512", "amx", "neon", "i8mm"; NULL: best */
    bool vocab_only;          /* tokenizer and metadata only: no plan, no weights          */
    bool plan_only;           /* checkpoint and plan, nothing loaded                       */
    fm_log_fn log;            /* NULL: silent                                              */
    void *log_user;
    /* Load progress, bytes. NULL: none. Return false to stop: the open fails, CANCELLED. */
    bool (*load_progress)(void *user, uint64_t done, uint64_t total);
    void *progress_user;
    int32_t io_depth;         /* reads in flight, 1 to 1024; 0: the default                */
    fm_prefetch prefetch;     /* 0: FM_PREFETCH_AUTO                                       */
    uint64_t io_split;        /* larger reads are cut into pieces of this many bytes, a multiple of
                                 4096; 0: the default. With neither io_depth nor io_split, and a model
                                 that does not fit, both are measured once per disk (at most 2 s)
                                 and kept in the user's cache directory */
    bool measure_io;          /* with plan_only: measure as loading would                   */
    bool collect_importance;  /* sums for fm_engine_write_importance(); a line of the plan */
    const char *trace_path;   /* record which experts every token chose; NULL: do not      */
    bool need_tokenizer;      /* fail at once, with the reason, where there is none that can be used;
                                 else that is a warning. vocab_only needs it always        */
    bool need_chat;           /* the same for conversations, fm_chat_tokenize(); with the tokenizer */
    bool warm_start;          /* begin with how often earlier sessions used each expert, and keep it for
                                 the next one when the engine is closed: a small file of the user's
                                 cache directory. Never changes the output */
    fm_draft_mode draft;      /* 0: FM_DRAFT_AUTO. with a trace or importance AUTO is OFF */
    /* Called when text can be turned into ids (fm_engine_tokenizer(), fm_chat_tokenize()) and before memory is
     * planned: what the caller knows by then goes into *wish, which is empty. A failure is the open's. NULL: none. */
    fm_status (*before_plan)(void *user, const fm_engine *engine, fm_plan_wish *wish, fm_error *err);
    void *before_plan_user;
} fm_engine_options;

void fm_engine_options_init(fm_engine_options *opt);

/* Opens the checkpoint, makes the plan and, unless plan_only/vocab_only, loads the trunk.
 * *out is NULL on failure. `opt` and its strings may be freed afterwards. */
fm_status fm_engine_open(fm_engine **out, const fm_engine_options *opt, fm_error *err);
void fm_engine_close(fm_engine *engine); /* NULL is fine; sessions must be gone */

/* ---- facts ------------------------------------------------------------------------------- */

typedef struct {
    const char *name;         /* from metadata, "" when absent           */
    const char *architecture; /* "qwen35moe"                             */
    const char *tokenizer;    /* pre-tokenizer name                      */
    const char *kernels;      /* kernel set in use                       */
    const char *io_engine;    /* I/O engine in use, "" before loading    */
    int32_t n_layer, n_embd, n_vocab, n_head, n_head_kv, n_ctx_train;
    int32_t n_expert, n_expert_used, n_expert_used_trained, n_moe_layer;
    int32_t n_full_attention_layer, n_linear_attention_layer;
    int32_t n_threads, n_ctx, n_batch;
    uint64_t n_param, n_param_active;
    uint64_t file_bytes, trunk_bytes, expert_bytes; /* expert_bytes: all routed experts   */
    uint64_t bytes_per_expert_max;                  /* largest routed expert              */
    uint64_t expert_bytes_per_token;                /* routed bytes one token activates   */
    uint64_t trunk_bytes_per_token;                 /* resident bytes one token touches   */
    int32_t n_shard;
    int32_t io_depth;                               /* reads in flight                    */
    uint64_t bytes_per_expert_read;                 /* largest read for an expert: a part */
    uint64_t shared_expert_bytes_per_token;         /* in trunk_bytes_per_token           */
    uint64_t head_bytes_per_token;                  /* in trunk_bytes_per_token           */
    int32_t n_window_layer, window; /* of the full attention layers; positions that they see */
    int32_t n_draft_layer;          /* further layers of the file                            */
    bool uses_draft;                /* the first of them drafts                              */
    uint64_t io_split;              /* bytes of a piece of a read                            */
    const char *io_origin; /* of io_depth and io_split: "default", "given", "measured", "remembered" */
    double io_measured_gb_s;        /* when they were measured, 1e9 bytes per second; 0: never */
    /* Tensors of a directory that are recognised and not used, and their bytes */
    int64_t n_vision_tensor, n_draft_tensor;
    uint64_t vision_bytes, draft_bytes;
    int32_t bos_id;                 /* token that every text of this model starts with; -1: none */
    fm_activations activations;
    /* Of names, types, shapes and places of all tensors and the sizes of the files: equal for copies of
     * a model, wherever they lie. */
    uint64_t identity;
    uint64_t embedding_bytes;   /* of the table of which one row per token is read; 0: it is the head, in the trunk */
    uint64_t draft_layer_bytes; /* of the layer that drafts, in neither trunk_bytes nor expert_bytes; 0: none */
    int32_t n_latent, n_latent_rot; /* latent attention: values cached of a position, without and with
                                       rope; 0: keys and values are cached per head          */
} fm_model_info;

/* Strings live as long as the engine. */
void fm_engine_model_info(const fm_engine *engine, fm_model_info *out);

/* Path of file `index` in [0, n_shard) and its size in *bytes (may be NULL); lives as long as the
 * engine. */
const char *fm_engine_file(const fm_engine *engine, int32_t index, uint64_t *bytes);

typedef struct {
    const char *type; /* "Q4_K" */
    uint64_t n_tensor, bytes_trunk, bytes_expert;
} fm_type_use;

/* One row per block format in the checkpoint, largest first; returns the number of rows
 * (at most `cap` are written). */
size_t fm_engine_type_use(const fm_engine *engine, fm_type_use *rows, size_t cap);

typedef struct {
    char name[48];
    uint64_t bytes;
} fm_plan_line;

#define FM_PLAN_LINES_MAX 24
typedef struct {
    fm_plan_line lines[FM_PLAN_LINES_MAX];
    int32_t n_line;
    uint64_t total_bytes;      /* sum of lines, never above budget_bytes              */
    uint64_t budget_bytes;     /* what the user gave, or what was found free          */
    uint64_t min_memory_bytes; /* the smallest budget that is legal with these options */
    int64_t expert_slots;      /* experts that fit in the cache                       */
    int64_t experts_total;     /* layers x experts                                    */
    int32_t trunk_units;       /* pieces of the trunk                                 */
    int32_t trunk_resident;    /* of which stay in memory; the rest is streamed       */
    int32_t n_ctx, n_batch;    /* as planned                                          */
    bool budget_given;         /* false: chosen from the machine's free memory        */
    uint64_t machine_bytes;    /* memory of the machine or of the enclosing cgroup    */
    uint64_t available_bytes;  /* of which this process could still take, before loading */
} fm_plan;

void fm_engine_plan(const fm_engine *engine, fm_plan *out);

/* ---- text -------------------------------------------------------------------------------- */

/* What a tokenizer adds to its vocabulary is of two kinds: control tokens, which open and end turns,
 * and markup that a model reads and writes as text (<think>, <tool_call>). */
#define FM_TOKENIZE_CONTROL 1u /* control tokens in the text become their ids            */
#define FM_TOKENIZE_MARKUP 2u  /* markup becomes its ids                                 */
#define FM_TOKENIZE_SPECIAL 3u /* both: the text is trusted to hold whole turns          */

typedef struct fm_tokenizer fm_tokenizer;

/* Owned by the engine. NULL when the model has none that can be used: the log was told why. */
const fm_tokenizer *fm_engine_tokenizer(const fm_engine *engine);

/* A tokenizer alone: from a tokenizer.json, a GGUF file, or a directory with tokenizer.json or
 * tiktoken.model. */
fm_status fm_tokenizer_open(fm_tokenizer **out, const char *path, fm_error *err);
void fm_tokenizer_close(fm_tokenizer *tok);

/* Text (n bytes, need not be terminated, need not be valid UTF-8) to ids. *ids is malloc'd,
 * the caller frees it with free(). No BOS is added. */
fm_status fm_tokenize(const fm_tokenizer *tok, int32_t **ids, size_t *n_ids, const char *text,
                      size_t n, unsigned flags, fm_error *err);

/* Bytes of one token as they appear in text; length in *n. NULL for an id out of range.
 * Borrowed, lives as long as the tokenizer. Special tokens give their literal text. */
const char *fm_token_bytes(const fm_tokenizer *tok, int32_t id, size_t *n);

bool fm_token_is_special(const fm_tokenizer *tok, int32_t id); /* control token        */
bool fm_token_is_end(const fm_tokenizer *tok, int32_t id);     /* ends a generation    */
int32_t fm_token_find(const fm_tokenizer *tok, const char *literal); /* exact; -1: none */
int32_t fm_tokenizer_n_vocab(const fm_tokenizer *tok);

/* Holds back bytes until they are whole UTF-8 characters; broken bytes become U+FFFD.
 * Zero-initialise. */
typedef struct {
    unsigned char pending[4];
    uint8_t n_pending;
} fm_utf8_stream;

/* Appends n bytes; writes whole characters to out (capacity at least 3 * (n + 3)); returns the
 * number of bytes written. With n == 0 and flush, what is pending comes out as U+FFFD. */
size_t fm_utf8_push(fm_utf8_stream *s, char *out, const char *bytes, size_t n, bool flush);

/* ---- chat -------------------------------------------------------------------------------- */

typedef struct {
    const char *role;    /* "system", "user", "assistant", "tool" */
    const char *content;
} fm_message;

/* A conversation is put into text by the model's own chat template (Jinja), or in the ChatML form
 * when it carries none. What the template itself puts down becomes control tokens, what comes from
 * the request does not, even when it spells one (markup such as <tool_call> does). */

/* A conversation of plain messages as ids, with the opening of the assistant's turn when
 * add_generation_prompt. *ids is malloc'd, the caller frees it with free(). FM_E_UNSUPPORTED when
 * the model has no template and its tokenizer lacks the markers of ChatML. */
fm_status fm_chat_tokenize(const fm_engine *engine, int32_t **ids, size_t *n_ids,
                           const fm_message *messages, size_t n_messages,
                           bool add_generation_prompt, fm_error *err);

typedef struct {
    size_t struct_size; /* sizeof(fm_chat_options) */
    int64_t now;        /* seconds since 1970 that strftime_now() sees; negative: the clock */
    bool add_generation_prompt; /* of a request that does not name it; else that is false   */
    const char *origin; /* names the request in messages; NULL: "request"                   */
} fm_chat_options;

typedef struct {
    char *text;             /* [n] and a NUL                                                  */
    unsigned char *trusted; /* [n]: 1 where the template wrote the byte, 0: from the request  */
    size_t n;
} fm_chat_text;
void fm_chat_text_free(fm_chat_text *text); /* what it holds */

/* A whole request: a JSON object [n] with `messages`, and as needed `tools`,
 * `add_generation_prompt` and whatever else the template knows (`enable_thinking`, ...): each key is
 * a variable of the template, ints and floats stay apart, the order of keys is kept. bos_token and
 * the like are the model's unless the request names them. As in transformers' apply_chat_template,
 * tools and documents are None and add_generation_prompt is False when they are absent. A model
 * with a template of its own for tools has it used when `tools` is neither absent nor null.
 *
 * FM_E_ARG when the request is not such an object, and with the message of a template that raises;
 * FM_E_FORMAT when the template is broken; FM_E_LIMIT when it runs, nests or writes too much. opt
 * may be NULL. Any thread. */
fm_status fm_chat_render(const fm_engine *engine, fm_chat_text *out, const char *request, size_t n,
                         const fm_chat_options *opt, fm_error *err);
/* The same as ids; *ids is malloc'd, the caller frees it with free(). */
fm_status fm_chat_tokenize_request(const fm_engine *engine, int32_t **ids, size_t *n_ids,
                                   const char *request, size_t n, const fm_chat_options *opt,
                                   fm_error *err);
/* Whether the model's chat template, that for requests without tools, looks at a variable of this name. */
bool fm_chat_knows(const fm_engine *engine, const char *variable);
/* A template without a model; `origin` names it in messages. */
fm_status fm_template_render(fm_chat_text *out, const char *source, size_t n_source,
                             const char *origin, const char *request, size_t n,
                             const fm_chat_options *opt, fm_error *err);

/* ---- session ----------------------------------------------------------------------------- */

/* One session at a time: its memory is a line of the plan. FM_E_LIMIT while another one is open. */
fm_status fm_session_create(fm_session **out, fm_engine *engine, fm_error *err);
void fm_session_destroy(fm_session *session);

/* Called between layers, experts and chunks; return false to stop. The call then returns
 * FM_E_CANCELLED. tokens_done counts a pass that is under way by its layers: half of them done is half of
 * its tokens. */
typedef bool (*fm_eval_progress_fn)(void *user, int64_t tokens_done, int64_t tokens_total);

/* Receives logits [n_vocab] of the token at position pos, in order. Return false to stop. */
typedef bool (*fm_logits_fn)(void *user, int64_t pos, const float *logits);

typedef struct {
    size_t struct_size; /* sizeof(fm_eval_options) */
    fm_eval_progress_fn progress;
    void *progress_user;
    fm_logits_fn every_logits; /* NULL: only the last token's logits are computed */
    void *logits_user;
    int64_t logits_from; /* every_logits: of the tokens from this position of the session on */
    const int32_t *expected_next; /* of a single token: what the caller will probably ask for after it, which
                                     then is the draft (fm_draft_mode); NULL: the draft layer's guess */
} fm_eval_options;

/* Appends n tokens to the session and computes their logits in chunks that end at multiples of the
 * engine's n_batch. Batches that are multiples of 64 all give the same bits; the same tokens given in other calls may
 * differ in the last ones. opt may be NULL. The calling thread computes as well: a stack of 512 KiB is
 * enough for it, and for what renders templates.
 *
 * Errors of the arguments (FM_E_ARG; FM_E_LIMIT: the context is full) are found before anything is evaluated and leave
 * the session as it was. Any other error takes the whole call back: it may be given again. Models that have recurrent
 * state or layers with a window cannot go back: their session is empty then (n_past is 0). */
fm_status fm_session_eval(fm_session *session, const int32_t *ids, size_t n,
                          const fm_eval_options *opt, fm_error *err);

/* Logits [n_vocab] of the last evaluated token; borrowed until the next eval. NULL in a session that is new, was reset,
 * or whose last evaluation failed. */
const float *fm_session_logits(const fm_session *session);
int64_t fm_session_n_past(const fm_session *session);
/* Bytes of attention caches and recurrent state that the next token reads, and of the state writes. */
uint64_t fm_session_bytes_per_token(const fm_session *session);
void fm_session_reset(fm_session *session); /* forgets all tokens */

/* ---- sampling ---------------------------------------------------------------------------- */

typedef struct {
    size_t struct_size; /* set by fm_sampler_options_init() */
    float temperature;  /* 0: the largest logit             */
    int32_t top_k;      /* 0: off                           */
    float top_p;        /* 1: off                           */
    float min_p;        /* 0: off                           */
    float repeat_penalty; /* 1: off                         */
    int32_t repeat_last_n; /* tokens it looks back on       */
    uint64_t seed;      /* the same seed and logits give the same ids */
} fm_sampler_options;

typedef struct fm_sampler fm_sampler;
/* Temperature 0.7, top_p 0.95, all else off, 64 tokens to look back on, a seed that differs from
 * call to call. */
void fm_sampler_options_init(fm_sampler_options *opt);
/* FM_E_ARG when a value is out of its range. */
fm_status fm_sampler_create(fm_sampler **out, int32_t n_vocab, const fm_sampler_options *opt,
                            fm_error *err);
void fm_sampler_destroy(fm_sampler *s);
/* Picks an id from logits [n_vocab] and remembers it for the repeat penalty. In this order: repeat
 * penalty, top_k, top_p, min_p (both on probabilities at temperature 1), temperature, draw. Equal
 * logits count in order of their id. -1 when a logit is NaN or none is above -infinity: the logits
 * cannot be trusted; and for NULL. No allocation. */
int32_t fm_sampler_pick(fm_sampler *s, const float *logits);
void fm_sampler_accept(fm_sampler *s, int32_t id); /* a token that was not sampled */

/* ---- quantizing -------------------------------------------------------------------------- */

typedef enum { FM_QUANTIZE_WRITE, FM_QUANTIZE_VERIFY } fm_quantize_phase;

typedef struct {
    size_t struct_size;      /* sizeof(fm_quantize_options)                                    */
    const char *source;      /* any checkpoint that fm_engine_open() takes; only read          */
    const char *destination; /* one GGUF file; must not exist                                  */
    const char *type;        /* "Q8_0", "Q4_0", "Q4_K", "Q5_K", "Q6_K", "Q3_K", "Q2_K",
                                "MXFP4", "BF16", "F16" or "F32"                                */
    const char *expert_type; /* of routed experts; NULL: type                                  */
    const char *trunk_type;  /* of the other matrices, embedding and head; NULL: type          */
    const char *importance;  /* GGUF file of sums of squared activations; NULL: none           */
    int32_t n_threads;       /* 0: the cores this process may use                              */
    fm_log_fn log;           /* NULL: silent                                                   */
    void *log_user;
    /* Bytes of the destination; `resumed` of them were there before this call. NULL: none. Return false to
     * stop: FM_E_CANCELLED. */
    bool (*progress)(void *user, fm_quantize_phase phase, uint64_t done, uint64_t total,
                     uint64_t resumed);
    void *progress_user;
} fm_quantize_options;

typedef struct {
    uint64_t source_bytes, destination_bytes, resumed_bytes, peak_rss_bytes;
    int64_t n_tensor;   /* written                                             */
    int64_t n_copied;   /* of which their bytes are those of the source        */
    int64_t n_fallback; /* of which rows do not fit the type that was asked for */
    int64_t n_draft;    /* of the source, left out: layers that only draft     */
    int64_t n_vision;   /* of the source, left out                             */
} fm_quantize_result;

/* Writes a checkpoint as one GGUF file. Norms, routers, convolutions, biases and vectors become F32. The
 * destination is built as DESTINATION.part with DESTINATION.part.journal beside it and gets its name when all of it
 * was read back and found as it was written. Stopped at any moment (killed, a full disk), the same call goes
 * on from there; a part that was begun with other options or from another source is refused. Memory does not grow
 * with the source. result may be NULL. */
fm_status fm_quantize(const fm_quantize_options *opt, fm_quantize_result *result, fm_error *err);

/* ---- statistics -------------------------------------------------------------------------- */

enum { FM_MISS_BINS = 33 };

typedef struct {
    uint64_t load_bytes;      /* read while opening                                     */
    uint64_t bytes_read;      /* read since: experts and streamed trunk                 */
    uint64_t expert_hits, expert_misses; /* with prefetch_used: all that were asked for   */
    uint64_t disk_wait_us;    /* computation stood still for a read                     */
    uint64_t prompt_us, gen_us; /* inside eval with more than one token / with one      */
    uint64_t expert_us, attention_us, head_us; /* shares of the above, without disk waits */
    uint64_t tokens_evaluated;
    uint64_t peak_rss_bytes;  /* of the process (VmHWM)                                 */
    uint64_t load_us;
    uint64_t prefetch_reads, prefetch_used; /* experts read ahead; of which asked for      */
    uint64_t sync_us; /* the evaluating thread waited for others at joins; inside the shares */
    /* Layers that one token went through with i misses; the last bin: that many or more. */
    uint64_t layers_with_misses[FM_MISS_BINS];
    uint64_t disk_busy_us; /* the disk had reads, with loading; as the engine sees it, so what is read ahead
                              when a call ends counts up to the next call                */
    uint64_t experts_evicted_early; /* while memory of the budget was still to be got from the system,
                                       for which there was no time yet: the cache still grows       */
    uint64_t experts_growing_bytes; /* now: such memory that is wanted, with 512 MiB ahead for each size
                                       of expert; it comes while nothing is evaluated, and slowly
                                       while processors are busy                                    */
    uint64_t drafts, drafts_right; /* tokens that were guessed; of which asked for next   */
    uint64_t draft_us; /* in the draft layer, prompts included; apart from the shares above */
} fm_stats;

void fm_engine_stats(const fm_engine *engine, fm_stats *out);

/* How fast the engine's threads can read its resident weights where they lie: the best of `passes` in 1e9
 * bytes per second; 0 when none are resident. */
double fm_engine_weights_gb_s(fm_engine *engine, int passes);

/* With collect_importance: the sums of squares of what every matrix was multiplied with, over all tokens
 * that were evaluated since the engine was opened, for each expert those that chose it. Written in
 * llama.cpp's GGUF form of an importance matrix (docs/formats.md); appears under this name when it is
 * complete. `dataset` names the text, n_chunk and chunk_size are its windows and their tokens. The
 * sums are the same for every placement and number of threads. */
fm_status fm_engine_write_importance(const fm_engine *engine, const char *path, const char *dataset,
                                     uint32_t n_chunk, uint32_t chunk_size, fm_error *err);

/* Completes the file of trace_path (a routing trace, docs/formats.md) and ends the recording. A pass that failed is left
 * out; where none was evaluated a file of that name stays as it was. Closing the engine does the same, but can only log a
 * failure. Without a trace_path: nothing. */
fm_status fm_engine_finish_trace(fm_engine *engine, fm_error *err);

/* "release", "debug checks" or "fault injection": how this was built, for --version. */
const char *fm_build_info(void);

#ifdef __cplusplus
}
#endif
