#pragma once
/*
 * completion: scripts for bash, zsh and fish from the command table. Pure.
 *
 * The files in completion/ are what these print (a unit test compares them), so that packages need
 * not run the program they build. Names of peers are asked for with `wgctl __complete`.
 */
#include "lib/buf.h"
#include "wgctl/cli.h"

void completion_bash(const struct cli_command *root, struct buf *out);
void completion_zsh(const struct cli_command *root, struct buf *out);
void completion_fish(const struct cli_command *root, struct buf *out);
