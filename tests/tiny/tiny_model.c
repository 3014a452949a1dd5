/* Writes a tiny model as a GGUF v3 file, or as shards of one: metadata, a small byte-level BPE
 * vocabulary, tensor table, tensor data row by row. What the tensors are is in tiny_spec.c, what
 * their values are in tiny_random.c.
 */
#include "tiny_model.h"

#include "tiny_internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 32, MAX_SHARD = 999 };

/* GGUF value types */
enum { T_U16 = 2, T_U32 = 4, T_I32 = 5, T_F32 = 6, T_BOOL = 7, T_STRING = 8, T_ARRAY = 9 };

/* Bytes that grow; after a failed allocation it stays empty and remembers it. */
typedef struct {
    uint8_t *data;
    size_t len, cap;
    uint64_t n_kv;
    bool is_failed;
} buffer;

static int fail(char *err, size_t err_len, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (err_len > 0) vsnprintf(err, err_len, format, args);
    va_end(args);
    return -1;
}

static void put(buffer *b, const void *src, size_t n)
{
    if (b->is_failed) return;
    if (n > b->cap - b->len) {
        const size_t cap = 2 * b->cap + n + 1024;
        uint8_t *grown = realloc(b->data, cap);
        if (!grown) {
            b->is_failed = true;
            return;
        }
        b->data = grown;
        b->cap = cap;
    }
    memcpy(b->data + b->len, src, n);
    b->len += n;
}

static void put_le(buffer *b, uint64_t v, int n_byte)
{
    uint8_t bytes[8];
    for (int i = 0; i < n_byte; i++) bytes[i] = (uint8_t)(v >> (8 * i));
    put(b, bytes, (size_t)n_byte);
}

static void put_string(buffer *b, const char *s)
{
    put_le(b, strlen(s), 8);
    put(b, s, strlen(s));
}

static void put_key(buffer *b, const char *prefix, const char *key, uint32_t type)
{
    char full[96];
    snprintf(full, sizeof full, "%s%s%s", prefix, *prefix ? "." : "", key);
    put_string(b, full);
    put_le(b, type, 4);
    b->n_kv++;
}

static void kv_int(buffer *b, const char *prefix, const char *key, uint32_t type, int64_t v)
{
    put_key(b, prefix, key, type);
    put_le(b, (uint64_t)v, type == T_U16 ? 2 : type == T_BOOL ? 1 : 4);
}

static void kv_u32(buffer *b, const char *prefix, const char *key, int v)
{
    kv_int(b, prefix, key, T_U32, v);
}

static void kv_f32(buffer *b, const char *prefix, const char *key, double v)
{
    const float f = (float)v;
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    put_key(b, prefix, key, T_F32);
    put_le(b, bits, 4);
}

static void kv_string(buffer *b, const char *key, const char *v)
{
    put_key(b, "", key, T_STRING);
    put_string(b, v);
}

static void kv_array(buffer *b, const char *prefix, const char *key, uint32_t type, size_t n)
{
    put_key(b, prefix, key, T_ARRAY);
    put_le(b, type, 4);
    put_le(b, n, 8);
}

/* Of deepseek2 too. */
static void put_glm4moe_metadata(buffer *b, const tiny_plan *plan)
{
    const tiny_spec *s = plan->spec;
    const char *arch = tiny_family_name(s->family);
    kv_u32(b, arch, "rope.dimension_count", s->rope_dim);
    kv_u32(b, arch, "leading_dense_block_count", s->n_dense);
    kv_u32(b, arch, "expert_shared_count", s->shared_ff / s->expert_ff);
    kv_u32(b, arch, "expert_gating_func", 2);
    kv_f32(b, arch, "expert_weights_scale",
           tiny_has_fault(plan, "weights_scale") ? 1.5 * s->weights_scale : s->weights_scale);
    kv_int(b, arch, "expert_weights_norm", T_BOOL, !tiny_has_fault(plan, "weights_norm"));
}

static void put_yarn_metadata(buffer *b, const tiny_plan *plan)
{
    const tiny_spec *s = plan->spec;
    const char *arch = tiny_family_name(s->family);
    char key[64];
    snprintf(key, sizeof key, "%s.rope.scaling.type", arch);
    kv_string(b, key, "yarn");
    kv_f32(b, arch, "rope.scaling.factor",
           tiny_has_fault(plan, "yarn") ? s->yarn_factor / 2 : s->yarn_factor);
    kv_u32(b, arch, "rope.scaling.original_context_length", s->n_ctx_original);
    kv_f32(b, arch, "rope.scaling.yarn_beta_fast", s->beta_fast);
    kv_f32(b, arch, "rope.scaling.yarn_beta_slow", s->beta_slow);
}

/* What newer files call the heads of the absorbed form: one key of latent and rotary values, of which the latent
 * is the value; older ones give the heads as published. */
static void put_deepseek2_metadata(buffer *b, const tiny_plan *plan)
{
    const tiny_spec *s = plan->spec;
    const char *arch = tiny_family_name(s->family);
    if (s->q_latent) kv_u32(b, arch, "attention.q_lora_rank", s->q_latent);
    kv_u32(b, arch, "attention.kv_lora_rank", s->kv_latent);
    if (!s->has_kv_b) {
        kv_u32(b, arch, "attention.key_length_mla", s->head_dim + s->rope_dim);
        kv_u32(b, arch, "attention.value_length_mla", s->value_dim);
    }
    if (s->n_group > 1) {
        kv_u32(b, arch, "expert_group_count", s->n_group);
        kv_u32(b, arch, "expert_group_used_count",
               s->n_group_used - tiny_has_fault(plan, "groups"));
    }
    if (s->yarn_factor <= 0) return;
    put_yarn_metadata(b, plan);
    kv_f32(b, arch, "rope.scaling.yarn_log_multiplier",
           (tiny_has_fault(plan, "mscale") ? 0.05 : 0.1) * s->mscale);
}

static void put_indexer_metadata(buffer *b, const tiny_plan *plan)
{
    const tiny_spec *s = plan->spec;
    const char *arch = tiny_family_name(s->family);
    kv_u32(b, arch, "attention.indexer.head_count", s->n_index_head);
    kv_u32(b, arch, "attention.indexer.key_length", s->index_dim);
    kv_u32(b, arch, "attention.indexer.top_k",
           tiny_has_fault(plan, "index_topk") ? s->index_topk / 2 : s->index_topk);
    if (!s->index_types) return;
    kv_array(b, arch, "attention.indexer.types", T_BOOL, (size_t)s->n_layer);
    for (int i = 0; i < s->n_layer; i++)
        put_le(b, s->index_types[i] == 'F' && !(i > 0 && tiny_has_fault(plan, "index_types")), 1);
}

static void put_gptoss_metadata(buffer *b, const tiny_plan *plan)
{
    const tiny_spec *s = plan->spec;
    const char *arch = tiny_family_name(s->family);
    kv_u32(b, arch, "rope.dimension_count", s->rope_dim);
    kv_u32(b, arch, "attention.sliding_window",
           tiny_has_fault(plan, "window") ? s->window * 3 / 2 + 1 : s->window);
    put_yarn_metadata(b, plan);
}

static void put_model_metadata(buffer *b, const tiny_plan *plan)
{
    const tiny_spec *s = plan->spec;
    const char *arch = tiny_family_name(s->family);
    char name[64];
    snprintf(name, sizeof name, "tiny %s", s->name);
    kv_string(b, "general.architecture", arch);
    kv_string(b, "general.type", "model");
    kv_string(b, "general.name", name);
    kv_int(b, "", "general.file_type", T_U32, plan->format->file_type);
    kv_u32(b, "", "general.quantization_version", 2);
    kv_u32(b, arch, "block_count", s->n_layer + s->has_draft_layer);
    if (s->has_draft_layer) kv_u32(b, arch, "nextn_predict_layers", 1);
    kv_u32(b, arch, "context_length", 4096);
    kv_u32(b, arch, "embedding_length", s->n_embd);
    if (s->family != TINY_QWEN35MOE)
        kv_u32(b, arch, "feed_forward_length",
               s->dense_ff                ? s->dense_ff
               : s->family == TINY_GPTOSS ? s->expert_ff
                                          : 3 * s->n_embd);
    kv_u32(b, arch, "attention.head_count", s->n_head);
    kv_f32(b, arch, "attention.layer_norm_rms_epsilon", plan->eps);
    kv_f32(b, arch, "rope.freq_base", plan->rope_base);
    kv_u32(b, arch, "expert_count", s->n_expert);
    kv_u32(b, arch, "expert_used_count", s->n_expert_used);
    kv_u32(b, arch, "expert_feed_forward_length", s->expert_ff);
    kv_u32(b, arch, "vocab_size", s->n_vocab);
    const bool is_latent = tiny_is_latent(s), is_absorbed = is_latent && !s->has_kv_b;
    kv_u32(b, arch, "attention.head_count_kv", is_absorbed ? 1 : s->n_head_kv);
    kv_u32(b, arch, "attention.key_length",
           (is_absorbed ? s->kv_latent : s->head_dim) + (is_latent ? s->rope_dim : 0));
    kv_u32(b, arch, "attention.value_length",
           is_absorbed ? s->kv_latent
           : is_latent ? s->value_dim
                       : s->head_dim);
    if (s->family == TINY_GLM4MOE || is_latent) put_glm4moe_metadata(b, plan);
    if (is_latent) put_deepseek2_metadata(b, plan);
    if (s->n_index_head) put_indexer_metadata(b, plan);
    if (s->family == TINY_GPTOSS) put_gptoss_metadata(b, plan);
    if (!tiny_is_hybrid(s)) return;
    kv_u32(b, arch, "rope.dimension_count", s->rope_dim);
    if (s->family == TINY_QWEN35MOE) {
        /* three sections as equal as can be, the last one shorter, as in published files */
        const int half = s->rope_dim / 2;
        const int sections[4] = {(half + 2) / 3, (half + 1) / 3, half / 3, 0};
        kv_array(b, arch, "rope.dimension_sections", T_I32, 4);
        for (int i = 0; i < 4; i++) put_le(b, (uint64_t)sections[i], 4);
    }
    kv_u32(b, arch, "expert_shared_feed_forward_length", s->shared_ff);
    kv_u32(b, arch, "ssm.conv_kernel", 4);
    kv_u32(b, arch, "ssm.state_size", s->state_dim);
    kv_u32(b, arch, "ssm.group_count", s->n_key_head);
    kv_u32(b, arch, "ssm.time_step_rank", s->n_value_head);
    kv_u32(b, arch, "ssm.inner_size", s->state_dim * s->n_value_head);
    kv_u32(b, arch, "full_attention_interval", s->full_interval);
}

/* The byte-level BPE alphabet: a printable byte stands for itself, the others for U+0100 on. */
static void byte_symbol(char out[3], int byte)
{
    int code = byte, spare = 256;
    for (int c = 0; c <= byte; c++) {
        const bool is_printable = (c >= 33 && c < 127) || (c >= 161 && c < 173) || c >= 174;
        if (c == byte) code = is_printable ? c : spare;
        if (!is_printable) spare++;
    }
    if (code < 128) {
        snprintf(out, 3, "%c", code);
    } else {
        snprintf(out, 3, "%c%c", 0xC0 | code >> 6, 0x80 | (code & 63));
    }
}

/* A merge rule as written below, with '_' for the symbol of the space byte. */
static void expand_merge(char *out, size_t len, const char *rule, bool is_joined)
{
    char space[3];
    size_t n = 0;
    byte_symbol(space, ' ');
    for (; *rule && n + 3 < len; rule++) {
        if (*rule == '_') {
            memcpy(out + n, space, 2);
            n += 2;
        } else if (*rule != ' ' || !is_joined) {
            out[n++] = *rule;
        }
    }
    out[n] = '\0';
}

static int put_tokenizer(buffer *b, const tiny_spec *s)
{
    static const char *const merges[] = {
        "_ t",  "h e", "i n", "_ a", "r e", "o n", "_ s", "e r",  "_t he",
        "in g", "a n", "_ o", "o r", "_ w", "a t", "e n", "_a n", "_an d",
    };
    enum { N_MERGE = sizeof merges / sizeof merges[0], N_SPECIAL = 3 };
    static const char *const all_specials[][N_SPECIAL] = {
        {"<|endoftext|>", "<|im_start|>", "<|im_end|>"},
        {"<|endoftext|>", "<|user|>", "<|observation|>"},
        {"<|startoftext|>", "<|call|>", "<|return|>"},
        {"<\xef\xbd\x9c"
         "begin"
         "\xe2\x96\x81"
         "of"
         "\xe2\x96\x81"
         "sentence\xef\xbd\x9c>",
         "<\xef\xbd\x9cUser\xef\xbd\x9c>",
         "<\xef\xbd\x9c"
         "end\xe2\x96\x81of\xe2\x96\x81sentence\xef\xbd\x9c>"},
    };
    const bool is_glm = s->family == TINY_GLM4MOE || s->family == TINY_GLM_DSA,
               is_oss = s->family == TINY_GPTOSS;
    const bool is_deepseek = tiny_is_latent(s) && !is_glm;
    const char *const *specials = all_specials[is_glm ? 1 : is_oss ? 2 : is_deepseek ? 3 : 0];
    const int n_filler = s->n_vocab - 256 - N_MERGE - N_SPECIAL;
    const int first_special = s->n_vocab - N_SPECIAL;
    char text[32], space[3];

    if (n_filler < 0) return -1;
    kv_string(b, "tokenizer.ggml.model", "gpt2");
    kv_string(b, "tokenizer.ggml.pre",
              s->family == TINY_QWEN35MOE ? "qwen35"
              : is_glm                    ? "glm4"
              : is_oss                    ? "gpt-4o"
              : is_deepseek               ? "deepseek-v3"
                                          : "qwen2");
    kv_array(b, "", "tokenizer.ggml.tokens", T_STRING, (size_t)s->n_vocab);
    for (int i = 0; i < 256; i++) {
        byte_symbol(text, i);
        put_string(b, text);
    }
    for (int i = 0; i < N_MERGE; i++) {
        expand_merge(text, sizeof text, merges[i], true);
        put_string(b, text);
    }
    byte_symbol(space, ' ');
    for (int i = 0; i < n_filler; i++) {
        snprintf(text, sizeof text, "%sw%05x", space, (unsigned)i);
        put_string(b, text);
    }
    for (int i = 0; i < N_SPECIAL; i++) put_string(b, specials[i]);
    kv_array(b, "", "tokenizer.ggml.token_type", T_I32, (size_t)s->n_vocab);
    for (int i = 0; i < s->n_vocab; i++) put_le(b, i < first_special ? 1 : 3, 4);
    kv_array(b, "", "tokenizer.ggml.merges", T_STRING, N_MERGE);
    for (int i = 0; i < N_MERGE; i++) {
        expand_merge(text, sizeof text, merges[i], false);
        put_string(b, text);
    }
    kv_u32(b, "", "tokenizer.ggml.bos_token_id", first_special);
    kv_u32(b, "", "tokenizer.ggml.eos_token_id", first_special + 2);
    kv_u32(b, "", "tokenizer.ggml.padding_token_id", first_special);
    kv_int(b, "", "tokenizer.ggml.add_bos_token", T_BOOL, 0);
    kv_string(b, "tokenizer.chat_template",
              "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
              "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}");
    return 0;
}

static uint64_t n_row_of(const tiny_tensor *t)
{
    const uint64_t n_row = t->n_dims > 1 ? t->dims[1] : 1;
    return t->n_dims > 2 ? n_row * t->dims[2] : n_row;
}

static uint64_t row_bytes_of(const tiny_tensor *t)
{
    return t->dims[0] / (uint64_t)t->format->block_elems * (uint64_t)t->format->block_bytes;
}

/* The tensor of the same shard whose bytes serve for t as well when layers share experts. */
static tiny_tensor *shared_original(const tiny_plan *plan, const tiny_tensor *t)
{
    const char *kind = strchr(t->name + 4, '.'); /* behind "blk.N" */
    for (tiny_tensor *o = plan->tensors; o < t; o++) {
        if (o->is_expert && o->shard == t->shard && strcmp(strchr(o->name + 4, '.'), kind) == 0) {
            return o;
        }
    }
    return NULL;
}

static void place_tensors(tiny_plan *plan, int n_shards, bool share_layers)
{
    uint64_t end = 0;
    for (size_t i = 0; i < plan->n; i++) {
        tiny_tensor *t = &plan->tensors[i];
        t->shard = (int)(i * (size_t)n_shards / plan->n);
        if (i > 0 && t->shard != plan->tensors[i - 1].shard) end = 0;
        t->size = n_row_of(t) * row_bytes_of(t);
        const tiny_tensor *original = NULL;
        if (share_layers && t->is_expert) {
            /* every layer's experts are keyed with the first's, also across shards */
            const char *part = strstr(t->hf, ".mlp.");
            char hf[sizeof t->hf];
            snprintf(hf, sizeof hf, "model.layers.%d%.60s", plan->spec->n_dense, part);
            memcpy(t->hf, hf, sizeof hf);
            original = shared_original(plan, t);
        }
        t->is_alias = original != NULL;
        t->offset = original ? original->offset : end;
        if (!original) end += (t->size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    }
}

static int write_padding(FILE *f, uint64_t len)
{
    static const uint8_t zeros[ALIGNMENT];
    const size_t n = (size_t)((ALIGNMENT - len % ALIGNMENT) % ALIGNMENT);
    return fwrite(zeros, 1, n, f) == n ? 0 : -1;
}

static int write_tensor(FILE *f, const tiny_plan *plan, const tiny_tensor *t)
{
    const uint64_t row_bytes = row_bytes_of(t), n_row = n_row_of(t);
    uint8_t *row = malloc((size_t)row_bytes);
    int status = row ? 0 : -1;
    for (uint64_t r = 0; r < n_row && status == 0; r++) {
        tiny_fill_row(row, plan, t, r);
        if (fwrite(row, 1, (size_t)row_bytes, f) != row_bytes) status = -1;
    }
    free(row);
    return status == 0 ? write_padding(f, t->size) : -1;
}

static void put_header(buffer *b, const tiny_plan *plan, const buffer *kv, int shard)
{
    uint64_t n = 0;
    for (size_t i = 0; i < plan->n; i++) n += plan->tensors[i].shard == shard;
    put(b, "GGUF", 4);
    put_le(b, 3, 4);
    put_le(b, n, 8);
    put_le(b, kv->n_kv, 8);
    if (kv->len > 0) put(b, kv->data, kv->len);
    for (size_t i = 0; i < plan->n; i++) {
        const tiny_tensor *t = &plan->tensors[i];
        if (t->shard != shard) continue;
        put_string(b, t->name);
        put_le(b, (uint64_t)t->n_dims, 4);
        for (int d = 0; d < t->n_dims; d++) put_le(b, t->dims[d], 8);
        put_le(b, t->format->gguf_id, 4);
        put_le(b, t->offset, 8);
    }
}

static int write_shard(const char *path, const tiny_plan *plan, int shard, int n_shards, char *err,
                       size_t err_len)
{
    buffer kv = {0}, head = {0};
    int status = 0;
    FILE *f = NULL;

    if (shard == 0) {
        put_model_metadata(&kv, plan);
        if (put_tokenizer(&kv, plan->spec) != 0) {
            status = fail(err, err_len, "%s: %d tokens are too few", plan->spec->name,
                          plan->spec->n_vocab);
            goto done;
        }
    }
    if (n_shards > 1) {
        kv_int(&kv, "", "split.no", T_U16, shard);
        kv_int(&kv, "", "split.count", T_U16, n_shards);
        kv_int(&kv, "", "split.tensors.count", T_I32, (int64_t)plan->n);
    }
    put_header(&head, plan, &kv, shard);
    if (kv.is_failed || head.is_failed) {
        status = fail(err, err_len, "%s: no memory for the header", path);
        goto done;
    }
    f = fopen(path, "wb");
    if (!f) {
        status = fail(err, err_len, "%s: %s", path, strerror(errno));
        goto done;
    }
    if (fwrite(head.data, 1, head.len, f) != head.len) status = -1;
    if (status == 0) status = write_padding(f, head.len);
    for (size_t i = 0; i < plan->n && status == 0; i++) {
        const tiny_tensor *t = &plan->tensors[i];
        if (t->shard == shard && !t->is_alias) status = write_tensor(f, plan, t);
    }
    if (fclose(f) != 0) status = -1;
    if (status != 0) fail(err, err_len, "%s: cannot write: %s", path, strerror(errno));

done:
    free(kv.data);
    free(head.data);
    return status;
}

static int write_files(const char *path, const tiny_plan *plan, int n_shards, char *err,
                       size_t err_len)
{
    if (n_shards == 1) return write_shard(path, plan, 0, 1, err, err_len);
    size_t stem = strlen(path);
    if (stem > 5 && strcmp(path + stem - 5, ".gguf") == 0) stem -= 5;
    const size_t len = stem + sizeof "-00001-of-00001.gguf";
    char *name = malloc(len);
    if (!name) return fail(err, err_len, "%s: no memory for the name", path);
    int status = 0;
    for (int i = 0; i < n_shards && status == 0; i++) {
        snprintf(name, len, "%.*s-%05d-of-%05d.gguf", (int)stem, path, i + 1, n_shards);
        status = write_shard(name, plan, i, n_shards, err, err_len);
    }
    free(name);
    return status;
}

int tiny_write(const char *path, const tiny_options *opt, char *err, size_t err_len)
{
    const char *type = opt->type ? opt->type : "F32";
    const int n_shards = opt->n_shards > 1 ? opt->n_shards : 1;
    tiny_plan plan = {.fault = opt->fault ? opt->fault : ""};

    plan.spec = opt->spec ? tiny_spec_find(opt->spec) : NULL;
    if (!plan.spec) return fail(err, err_len, "no spec %s", opt->spec ? opt->spec : "(null)");
    plan.format = tiny_format_find(type);
    if (!plan.format) return fail(err, err_len, "no type %s", type);
    if (opt->fault && !tiny_fault_applies(plan.spec, opt->fault)) {
        return fail(err, err_len, "%s: no fault %s for this spec", plan.spec->name, opt->fault);
    }
    if (n_shards > MAX_SHARD) return fail(err, err_len, "%d shards are too many", n_shards);

    int status = tiny_plan_tensors(&plan);
    if (status != 0) {
        fail(err, err_len, "%s: no memory for the tensor table", path);
    } else {
        place_tensors(&plan, n_shards, opt->share_layers);
        status = write_files(path, &plan, n_shards, err, err_len);
    }
    free(plan.tensors);
    return status;
}
