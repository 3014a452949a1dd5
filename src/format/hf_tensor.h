/* From the tensors of a directory to those of a checkpoint. */
#pragma once

#include "format/hf_adapter.h"
#include "format/safetensors.h"

/* Fills the tensor directory of c: every tensor of `raw` becomes (a plane of) a tensor with GGUF's name, or is counted as a
 * part of the vision model or of draft layers that are not used, or is refused by name. A draft layer that is whole becomes
 * the layer behind the last; block_count and nextn_predict_layers say so. config: config.json. */
fm_status fm_hf_map(fm_checkpoint *c, const fm_hf_adapter *a, const json_t *config,
                    const fm_raw_set *raw, fm_error *err);
