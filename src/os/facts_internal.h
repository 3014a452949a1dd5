/* The parts of facts.c that read files, with the root of the tree as a parameter, so that a test
 * can lay out a machine in a folder. */
#pragma once

#include "os/facts.h"

/* root: "" for this machine, else a folder that holds proc/ and sys/. */
void fm_facts_memory_at(const char *root, fm_mem_facts *out);

/* Processors that cgroup quotas leave, rounded up; 0: no quota. */
int fm_facts_cpu_quota_at(const char *root);

/* The first processor's largest cache, times as many as n_cpu processors have. */
uint64_t fm_facts_last_cache_at(const char *root, int n_cpu);

/* The number after "key" in a file of "key value" lines (a colon and a unit are tolerated).
 * UINT64_MAX when the file or the key is absent. */
uint64_t fm_facts_field(const char *path, const char *key);
