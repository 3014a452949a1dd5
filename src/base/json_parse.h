/* JSON that Python programs wrote. */
#pragma once

#include <jansson.h>

/* As json_loadb(), but an integer beyond 64 bits is a real number: tokenizer_config.json has
 * "model_max_length": 1000000000000000019884624838656 where no length is known. In such a text every
 * integer of 19 or more digits becomes a real number, also those that would fit. */
json_t *fm_json_parse(const char *text, size_t n, size_t flags, json_error_t *why);

/* What a value is, for messages: "an object", "an array", "a string", "a number", "true or false", "null". */
const char *fm_json_kind(const json_t *value);
