/* Recognises formats by dtypes and shapes: plain numbers, or codes with scales and, of MLX, biases. */
#include "format/hf_storage.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "quant/planar.h"

/* Shape as rows of columns: experts, rows, columns. The middle dimension of a convolution is dropped. */
static bool shape_of(const fm_raw_tensor *t, bool is_conv, fm_hf_shape *out)
{
    int64_t d[FM_RAW_DIMS];
    int32_t n = 0;
    for (int32_t i = 0; i < t->n_dim; i++)
        if (!(is_conv && i > 0 && t->dim[i] == 1)) d[n++] = t->dim[i];
    if (n < 1 || n > 3) return false;
    *out = (fm_hf_shape){n == 3 ? d[0] : 1, n >= 2 ? d[n - 2] : 1, d[n - 1], n};
    for (int32_t i = 0; i < n; i++)
        if (d[i] < 1) return false;
    return true;
}

static int64_t setting(const json_t *quantization, const char *module, const char *key)
{
    const json_t *own = module ? json_object_get(quantization, module) : NULL;
    const json_t *v = json_object_get(json_is_object(own) ? own : quantization, key);
    return json_is_integer(v) ? (int64_t)json_integer_value(v) : 0;
}

static bool scale_type(fm_dtype t, fm_scale *out)
{
    switch (t) {
    case FM_DT_F32:
        *out = FM_SCALE_F32;
        return true;
    case FM_DT_F16:
        *out = FM_SCALE_F16;
        return true;
    case FM_DT_BF16:
        *out = FM_SCALE_BF16;
        return true;
    case FM_DT_E8M0:
    case FM_DT_U8:
        *out = FM_SCALE_E8M0;
        return true;
    default:
        return false;
    }
}

/* "[a, b, c]" of a shape. */
static const char *shape_text(char out[80], const fm_raw_tensor *t)
{
    size_t at = (size_t)snprintf(out, 80, "[");
    for (int32_t i = 0; i < t->n_dim && at < 70; i++)
        at += (size_t)snprintf(out + at, 80 - at, "%s%" PRId64, i ? ", " : "", t->dim[i]);
    snprintf(out + (at < 78 ? at : 78), 80 - (at < 78 ? at : 78), "]");
    return out;
}

static fm_status bad_fit(const fm_hf_stored *t, const fm_raw_tensor *beside, fm_error *err)
{
    char a[80], b[80];
    return fm_fail(
        err, FM_E_FORMAT,
        "%s: tensor %.160s of shape %s and type %s does not fit %.160s of shape %s and type %s",
        t->path, beside->name, shape_text(a, beside), beside->dtype_name, t->codes->name,
        shape_text(b, t->codes), t->codes->dtype_name);
}

/* The name of a tensor's module, as configurations use it: without the last component. */
static void module_name(char out[256], const char *name)
{
    snprintf(out, 256, "%s", name);
    char *dot = strrchr(out, '.');
    if (dot) *dot = 0;
}

/* Type and shape in elements of codes with scales. */
static fm_status planar_type(const fm_hf_stored *t, uint32_t *type, fm_hf_shape *s, fm_error *err)
{
    const fm_raw_tensor *const codes = t->codes, *const scales = t->scales,
                               *const biases = t->biases;
    fm_hf_shape k;
    fm_scale scale;
    /* Only MLX's codes have biases; elsewhere they would say something that is not known here. */
    if (biases && codes->dtype != FM_DT_U32) return bad_fit(t, biases, err);
    fm_raw_tensor flat = *codes;
    /* gpt-oss: [expert][row][block][16 bytes] */
    if (codes->dtype == FM_DT_U8 && scales->n_dim > 0 && codes->n_dim == scales->n_dim + 1) {
        flat.n_dim--;
        flat.dim[flat.n_dim - 1] *= codes->dim[flat.n_dim];
    }
    if (!shape_of(&flat, false, s) || !shape_of(scales, false, &k) ||
        !scale_type(scales->dtype, &scale) || k.experts != s->experts)
        return bad_fit(t, scales, err);
    fm_code code = FM_CODE_NONE;
    int64_t group = 0;
    if (codes->dtype == FM_DT_E4M3) {
        code = FM_CODE_E4M3;
        if (k.rows == s->rows && k.columns == 1 && s->rows > 1 && scales->n_dim == codes->n_dim) {
            if (s->columns % 32 != 0)
                return fm_fail(err, FM_E_UNSUPPORTED,
                               "%s: tensor %.160s has %" PRId64
                               " columns of FP8, expected a multiple of 32",
                               t->path, codes->name, s->columns);
            *type = fm_planar_id(code, 32, scale);
            return *type ? FM_OK : bad_fit(t, scales, err);
        }
        if (k.rows != (s->rows + 127) / 128 || k.columns != (s->columns + 127) / 128)
            return bad_fit(t, scales, err);
        if (s->columns % 128 != 0)
            return fm_fail(err, FM_E_UNSUPPORTED,
                           "%s: tensor %.160s has %" PRId64
                           " columns of FP8, expected a multiple of 128",
                           t->path, codes->name, s->columns);
        *type = fm_planar_id(code, 128, scale);
        return *type ? FM_OK : bad_fit(t, scales, err);
    }
    if (k.rows != s->rows) return bad_fit(t, scales, err);
    if (codes->dtype == FM_DT_I32) {
        code = FM_CODE_I4;
        s->columns *= 8;
        group = s->columns / k.columns;
    } else if (codes->dtype == FM_DT_U8) {
        code = FM_CODE_E2M1;
        s->columns *= 2;
        group = 32;
    } else if (codes->dtype == FM_DT_U32) {
        char module[256];
        module_name(module, codes->name);
        group = setting(t->quantization, module, "group_size");
        if (group < 1 || group > 4096) group = 64;
        if (!biases) {
            code = FM_CODE_E2M1;
            group = 32;
            s->columns *= 8;
        } else {
            static const fm_code codes_of[] = {
                0, 0, FM_CODE_U2, FM_CODE_U3, FM_CODE_U4, FM_CODE_U5, FM_CODE_U6, 0, FM_CODE_U8};
            const int64_t elements = k.columns * group, bits = 32 * s->columns / elements;
            if (bits < 2 || bits > 8 || bits == 7 || bits * elements != 32 * s->columns)
                return bad_fit(t, scales, err);
            code = codes_of[bits];
            s->columns = elements;
        }
    }
    if (group * k.columns != s->columns) return bad_fit(t, scales, err);
    if (biases) {
        fm_hf_shape b;
        if (!shape_of(biases, false, &b) || biases->dtype != scales->dtype ||
            b.experts != k.experts || b.rows != k.rows || b.columns != k.columns)
            return bad_fit(t, biases, err);
    }
    *type = fm_planar_id(code, (uint32_t)group, scale);
    return *type ? FM_OK : bad_fit(t, scales, err);
}

fm_status fm_hf_stored_type(const fm_hf_stored *t, uint32_t *type, fm_hf_shape *s, fm_error *err)
{
    if (t->scales) return planar_type(t, type, s, err);
    switch (t->codes->dtype) {
    case FM_DT_F32:
        *type = FM_TYPE_F32;
        break;
    case FM_DT_F16:
        *type = FM_TYPE_F16;
        break;
    case FM_DT_BF16:
        *type = FM_TYPE_BF16;
        break;
    default:
        return fm_fail(err, FM_E_FORMAT, "%s: tensor %.200s is of type %s and has no scales",
                       t->path, t->codes->name, t->codes->dtype_name);
    }
    if (!t->biases && shape_of(t->codes, t->is_conv, s)) return FM_OK;
    char text[80];
    return fm_fail(err, FM_E_FORMAT, "%s: tensor %.200s has the shape %s", t->path, t->codes->name,
                   shape_text(text, t->codes));
}
