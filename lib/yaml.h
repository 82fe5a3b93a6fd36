#pragma once
/*
 * yaml: a configuration file as a JSON tree.
 *
 * Reads the YAML that people write by hand (mappings, sequences, plain and quoted scalars) with
 * libyaml and gives jansson objects, so that one set of readers serves both. Plain scalars become
 * null, booleans, integers, reals or strings by YAML 1.2's core rules; quoted ones stay strings.
 * Bounded: YAML_BYTES_MAX, YAML_DEPTH_MAX, YAML_NODES_MAX; aliases and duplicate keys are refused.
 */
#include <jansson.h>
#include <stddef.h>

#define YAML_BYTES_MAX (1 << 20)
#define YAML_DEPTH_MAX 16
#define YAML_NODES_MAX 65536
#define YAML_ERROR_MAX 160

/* An empty document gives an empty object. On failure (-EBADMSG, -ENOBUFS, -ENOMEM) error holds one
 * line with the line number and the cause. */
int yaml_read(const void *p, size_t len, json_t **ret, char error[static YAML_ERROR_MAX]);
/* The same from a file; also -errno of opening and reading it. */
int yaml_read_file(const char *path, json_t **ret, char error[static YAML_ERROR_MAX]);
